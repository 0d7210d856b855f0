/** The daemon is killed at each step of an operation: afterwards it has happened, or it has not. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { FAULT_POINTS, type FaultPoint } from "../../src/fault.js";
import { Daemon, runDaemon } from "./harness/daemon.js";
import { docker as cli, type Result } from "./harness/docker.js";
import { SOAK } from "./harness/effort.js";
import { environment, imageRef } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

const NAME = "subject";
const IMAGE = imageRef("busybox");
/** Of several layers, and pulled by this file's tests only. */
const PULLED = imageRef("multi");
const bridge = `hfp${process.pid}`;
const daemon = new Daemon(path.join(environment().directory, "f"));

const docker = (args: string[]): Promise<Result> =>
  cli(args, { host: daemon.host, timeout: 120_000 });

async function ok(args: string[]): Promise<string> {
  const { code, stdout, stderr } = await docker(args);
  assert.equal(code, 0, `docker ${args.join(" ")}: ${stdout}${stderr}`);
  return stdout.trim();
}

/** An operation that is cut short, and what may be the case after it. */
interface Operation {
  /** Before the daemon that is to die is started. */
  prepare?: string[][];
  command: string[];
  /** The state after the restart: either of them. */
  state: () => Promise<string>;
  before: string;
  done: string;
  undo: string[][];
}

async function containerState(): Promise<string> {
  const { code, stdout } = await docker([
    ...["inspect", "--type", "container"],
    ...["--format", "{{.State.Status}}", NAME],
  ]);
  return code === 0 ? stdout.trim() : "absent";
}

async function imageState(): Promise<string> {
  return (await docker(["image", "inspect", PULLED])).code === 0
    ? "present"
    : "absent";
}

const CREATE = ["create", "--name", NAME, IMAGE, "sleep", "1000"];
const REMOVE = [["rm", "-f", NAME]];

const operations = {
  pull: {
    command: ["pull", PULLED],
    state: imageState,
    before: "absent",
    done: "present",
    undo: [["rmi", PULLED]],
  },
  rmi: {
    prepare: [["pull", PULLED]],
    command: ["rmi", PULLED],
    state: imageState,
    before: "present",
    done: "absent",
    undo: [],
  },
  create: {
    command: CREATE,
    state: containerState,
    before: "absent",
    done: "created",
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
} satisfies Record<string, Operation>;

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

/** Everything of the host that this daemon made and that outlives it. */
function leftovers(): Record<string, string[]> {
  const links = (
    JSON.parse(execFileSync("ip", ["-json", "link"], { encoding: "utf8" })) as {
      ifname: string;
      master?: string;
    }[]
  )
    .filter(({ ifname, master }) => ifname === bridge || master === bridge)
    .map(({ ifname }) => ifname);
  const rules = environment().root
    ? execFileSync("nft", ["list", "ruleset"], { encoding: "utf8" })
        .split("\n")
        .filter((line) => line.includes(bridge))
    : [];
  return {
    files: list(daemon.dataRoot),
    runtime: list(daemon.execRoot),
    machines: daemon.machines().map(String),
    links: links.sort(),
    rules,
  };
}

/**
 * All files but logs, of which a container keeps an empty one for a start that did not happen, and empty
 * disks, which are made ahead.
 */
function list(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { recursive: true, encoding: "utf8" })
    .filter((name) => !/-json\.log$|^blank\/spare-/.test(name))
    .sort();
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
];

describe("a daemon that is killed in the middle of", () => {
  let clean: Record<string, string[]>;

  before(async () => {
    await daemon.start([
      ...["--warm", "0"],
      ...(environment().root ? ["--bridge", bridge] : []),
    ]);
    await ok(["pull", IMAGE]);
    // The empty disk that all others are copies of.
    await ok(CREATE);
    await ok(["start", NAME]);
    for (const command of REMOVE) await ok(command);
    // The template that machines of this kind are restored from from now on is made, too.
    await eventually(() => assert.deepEqual(leftovers()["machines"], []), {
      timeout: 60_000,
    });
    await daemon.stop("SIGKILL");
    await daemon.start();
    clean = leftovers();
  });
  afterEach(async () => {
    await daemon.ping().catch(() => daemon.start());
    await docker(["rm", "-f", NAME]);
    await docker(["rmi", "-f", PULLED]);
  });
  after(() => daemon.destroy());

  for (const point of SOAK ? FAULT_POINTS : SHORT) {
    test(`${point}: it happened or it did not, and nothing else is left`, async () => {
      const operation = operationOf(point);
      for (const command of operation.prepare ?? []) await ok(command);
      if (operation.prepare) await settled();
      const prepared = leftovers();
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
        await eventually(() => assert.deepEqual(leftovers(), prepared));
        await ok(operation.command);
        assert.equal(await operation.state(), operation.done);
      }
      for (const command of operation.undo) await ok(command);
      await eventually(() => assert.deepEqual(leftovers(), clean));
    });
  }

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
