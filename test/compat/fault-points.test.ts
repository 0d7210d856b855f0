/** The daemon is killed at each step of an operation: afterwards it has happened, or it has not. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { FAULT_POINTS, type FaultPoint } from "../../src/fault.js";
import { HALF_WRITTEN } from "../../src/state-file.js";
import { Daemon, runDaemon } from "./harness/daemon.js";
import { cliOf } from "./harness/docker.js";
import { SOAK } from "./harness/effort.js";
import { environment, imageRef } from "./harness/environment.js";
import { fault } from "./harness/figures.js";
import { leftovers as hostLeftovers } from "./harness/leftovers.js";
import { eventually } from "./harness/wait.js";

const NAME = "subject";
const IMAGE = imageRef("busybox");
/** Of several layers, and pulled by this file's tests only. */
const PULLED = imageRef("multi");
const bridge = `hfp${process.pid}`;
const daemon = new Daemon(path.join(environment().directory, "f"));

const { docker, ok } = cliOf(daemon, {
  timeout: 120_000,
  env: { DOCKER_BUILDKIT: "0" },
});
const leftovers = () => hostLeftovers(daemon, bridge);

/** An operation that is cut short, and what may be the case after it. */
interface Operation {
  /** Before the daemon that is to die is started. */
  prepare?: string[][];
  command: string[];
  /** The state after the restart: either of them. */
  state: () => Promise<string>;
  before: string;
  done: string;
  /** Undoes what no command undoes. */
  clear?: () => void;
  /** What may be left where it has not happened, as a cache, and is removed by this. */
  tidy?: string[][];
  undo: string[][];
}

/** What `inspect` says in a format, "absent" when there is no such thing. */
async function inspected(
  type: string,
  name: string,
  format: string,
): Promise<string> {
  const { code, stdout } = await docker([
    ...["inspect", "--type", type, "--format", format, name],
  ]);
  return code === 0 ? stdout.trim() : "absent";
}

const containerState = () => inspected("container", NAME, "{{.State.Status}}");
const there = (type: string, name: string) => () =>
  inspected(type, name, "present");

const CREATE = ["create", "--name", NAME, IMAGE, "sleep", "1000"];
const REMOVE = [["rm", "-f", NAME]];
const PIDS_MAX = "/sys/fs/cgroup/pids.max";
/** What is made of it. */
const MADE = "subject-image";
const NETWORK = [
  ...["network", "create", "--label", "of=test"],
  ...["-o", `com.docker.network.bridge.name=${bridge}n`, NAME],
];
/** Filled by `before`. */
const context = path.join(environment().directory, "fault-points-context");

const operations = {
  pull: {
    command: ["pull", PULLED],
    state: there("image", PULLED),
    before: "absent",
    done: "present",
    undo: [["rmi", PULLED]],
  },
  rmi: {
    prepare: [["pull", PULLED]],
    command: ["rmi", PULLED],
    state: there("image", PULLED),
    before: "present",
    done: "absent",
    undo: [],
  },
  create: {
    command: CREATE,
    state: containerState,
    before: "absent",
    done: "created",
    // The empty disk that all others are copies of is made anew by each daemon when it is needed.
    tidy: [
      ["create", "--name", "other", IMAGE],
      ["rm", "other"],
    ],
    undo: REMOVE,
  },
  start: {
    prepare: [CREATE],
    command: ["start", NAME],
    state: containerState,
    before: "created",
    done: "running",
    undo: REMOVE,
  },
  stop: {
    prepare: [CREATE, ["start", NAME]],
    command: ["stop", "-t", "0", NAME],
    state: containerState,
    before: "running",
    done: "exited",
    undo: REMOVE,
  },
  rm: {
    prepare: [CREATE, ["start", NAME], ["kill", NAME]],
    command: ["rm", NAME],
    state: containerState,
    before: "exited",
    done: "absent",
    undo: [],
  },
  "volume-create": {
    command: ["volume", "create", "--label", "of=test", NAME],
    state: there("volume", NAME),
    before: "absent",
    done: "present",
    undo: [["volume", "rm", NAME]],
  },
  "volume-rm": {
    prepare: [["volume", "create", NAME]],
    command: ["volume", "rm", NAME],
    state: there("volume", NAME),
    before: "present",
    done: "absent",
    undo: [],
  },
  "network-create": {
    command: NETWORK,
    state: there("network", NAME),
    before: "absent",
    done: "present",
    undo: [["network", "rm", NAME]],
  },
  "network-rm": {
    prepare: [NETWORK],
    command: ["network", "rm", NAME],
    state: there("network", NAME),
    before: "present",
    done: "absent",
    undo: [],
  },
  commit: {
    prepare: [CREATE],
    command: ["commit", NAME, MADE],
    state: there("image", MADE),
    before: "absent",
    done: "present",
    undo: [["rmi", MADE], ...REMOVE],
  },
  build: {
    command: ["build", "-t", MADE, context],
    state: there("image", MADE),
    before: "absent",
    done: "present",
    // The steps that were done are kept for the next build.
    tidy: [["image", "prune", "-f"]],
    undo: [["rmi", MADE]],
  },
  rename: {
    prepare: [CREATE],
    command: ["rename", NAME, "renamed"],
    state: async () =>
      (await inspected("container", "renamed", "after")) === "after"
        ? "after"
        : inspected("container", NAME, "before"),
    before: "before",
    done: "after",
    undo: [["rm", "renamed"]],
  },
  update: {
    prepare: [CREATE, ["start", NAME]],
    command: ["update", "--pids-limit", "77", NAME],
    // In the record and in the machine.
    state: async () => {
      const limit = await docker(["exec", NAME, "cat", PIDS_MAX]);
      return `${await inspected("container", NAME, "{{.HostConfig.PidsLimit}}")} ${limit.stdout.trim()}`;
    },
    before: "0 max",
    done: "77 77",
    undo: REMOVE,
  },
  // Of the first machine of its size, in the background.
  template: {
    command: ["run", "--rm", "-m", "60m", IMAGE, "true"],
    state: () =>
      Promise.resolve(
        templates().some((name) => name.endsWith("/template.json"))
          ? "present"
          : "absent",
      ),
    before: "absent",
    done: "present",
    clear: () => {
      for (const name of templates()) {
        const folder = path.join(daemon.dataRoot, name);
        rmSync(folder, { recursive: true, force: true });
      }
    },
    undo: [],
  },
} satisfies Record<string, Operation>;

/** The files of templates of another size than the daemon's own. */
function templates(): string[] {
  const { files = [] } = leftovers();
  return files.filter((name) => /^templates\/\w+\/(?!512m)/.test(name));
}

function operationOf(point: FaultPoint): Operation {
  const [prefix] = point.split(".");
  switch (prefix) {
    case "unpack":
      return operations.pull;
    case "end":
    case "teardown":
      return operations.stop;
    default:
      return operations[prefix as keyof typeof operations];
  }
}

/** One point of each operation in CI; all of them in the long form. */
const SHORT: readonly FaultPoint[] = [
  "pull.layer-renamed",
  "pull.image-recorded",
  "create.disk",
  "start.launched",
  "end.unbooked",
  "teardown.detached",
  "rm.record-gone",
  "volume-rm.renamed",
  "network-create.bridge",
  "network-rm.bridge-gone",
  "commit.config-stored",
  "build.run-started",
  "update.recorded",
  "template.saved",
];

describe("a daemon that is killed in the middle of", () => {
  let clean: Record<string, string[]>;
  let tried = 0;
  let passed = 0;

  before(async () => {
    mkdirSync(context);
    writeFileSync(path.join(context, "file"), "content");
    writeFileSync(
      path.join(context, "Dockerfile"),
      `FROM ${IMAGE}\nCOPY file /file\nRUN echo made > /made\nENV A=b\n`,
    );
    await daemon.start([
      ...["--warm", "0", "--zygote", "off"],
      ...(environment().root ? ["--bridge", bridge] : []),
    ]);
    await ok(["pull", IMAGE]);
    // The empty disk that all others are copies of.
    await ok(CREATE);
    await ok(["start", NAME]);
    for (const command of REMOVE) await ok(command);
    await templateMade();
    await daemon.stop("SIGKILL");
    await daemon.start();
    clean = await nothingHalf();
  });
  afterEach(async () => {
    await daemon.ping().catch(() => daemon.start());
    await docker(["rm", "-f", NAME, "renamed"]);
    await docker(["rmi", "-f", PULLED, MADE]);
    await docker(["volume", "rm", "-f", NAME]);
    await docker(["network", "rm", NAME]);
  });
  after(() => daemon.destroy());

  for (const point of SOAK ? FAULT_POINTS : SHORT) {
    test(`${point}: it happened or it did not, and nothing else is left`, async () => {
      const operation: Operation = operationOf(point);
      tried++;
      for (const command of operation.prepare ?? []) await ok(command);
      if (operation.prepare) await settled();
      const prepared = await nothingHalf();
      await daemon.stop("SIGTERM");

      await daemon.start(undefined, { HULL_FAULT: point });
      const victim = daemon.pid;
      const cut = docker(operation.command);
      await eventually(() => assert.equal(alive(victim), false), {
        timeout: 60_000,
        what: `the daemon comes to ${point}`,
      });
      await cut;

      await daemon.start();
      const state = await eventually(async () => {
        const now = await operation.state();
        assert.ok(
          now === operation.before || now === operation.done,
          `it is ${now}`,
        );
        return now;
      });
      if (state === operation.before) {
        await eventually(async () => {
          for (const command of operation.tidy ?? []) await ok(command);
          assert.deepEqual(leftovers(), prepared);
        });
        await ok(operation.command);
        await eventually(
          async () => assert.equal(await operation.state(), operation.done),
          { timeout: 60_000 },
        );
      }
      operation.clear?.();
      for (const command of operation.undo) await ok(command);
      await eventually(() => assert.deepEqual(leftovers(), clean));
      passed++;
    });
  }

  test("all: what was tried, and what was lost", (t) => {
    fault(t, "daemon killed within an operation", tried, tried - passed);
  });

  test("nothing: a point that does not exist is refused", async () => {
    process.env["HULL_FAULT"] = "nowhere";
    try {
      const refused = await runDaemon(["--data-root", daemon.dataRoot]);
      assert.equal(refused.code, 2);
      assert.match(refused.output, /no fault point nowhere/);
    } finally {
      delete process.env["HULL_FAULT"];
    }
  });
});

/** The template that machines of this kind are restored from from now on is made, and its machine gone. */
function templateMade(): Promise<void> {
  return eventually(
    () => {
      const { files = [], runtime, machines } = leftovers();
      assert.ok(files.some((name) => name.endsWith("/template.json")));
      assert.ok(!files.some((name) => name.includes(".draft")));
      assert.deepEqual(runtime, ["m", "trial"]);
      assert.deepEqual(machines, []);
    },
    { timeout: 120_000, what: "the template is made" },
  );
}

/** What is there once no file is being written: leases are, a moment after they changed. */
function nothingHalf(): Promise<Record<string, string[]>> {
  return eventually(() => {
    const now = leftovers();
    const { files = [] } = now;
    assert.deepEqual(
      files.filter((name) => HALF_WRITTEN.test(name)),
      [],
    );
    return now;
  });
}

/** A machine that was asked to end is gone; one that runs has all it needs. */
async function settled(): Promise<void> {
  const state = await containerState();
  if (state !== "exited") return;
  await eventually(() => assert.deepEqual(leftovers()["machines"], []));
  await eventually(() => assert.deepEqual(leftovers()["links"], [bridge]));
}

function alive(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}
