import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { pino } from "pino";
import {
  Conflict,
  InvalidParameter,
  NotFound,
  NotModified,
  SystemError,
} from "../errors.js";
import { EventBus } from "../events.js";
import { Filters } from "../filters.js";
import type { Hello } from "../../protocol/index.js";
import { AgentFailure } from "../hypervisor/index.js";
import type { Image } from "../images/index.js";
import type { NetworkService } from "../networks/index.js";
import { Volumes } from "../volumes/index.js";
import type { Container } from "./container.js";
import { createRequestSchema } from "./create-request.js";
import { readLog } from "./log/reader.js";
import { ContainerService } from "./service.js";
import { WritableDisks } from "./writable-disk.js";
import { TestHypervisor, TestMachine } from "./test-machine.js";
import { inspectView } from "./views.js";

const IMAGE: Image = {
  id: "sha256:" + "1".repeat(64),
  repoTags: ["box:latest"],
  repoDigests: [],
  config: { Cmd: ["sh"], Env: ["A=image", "B=image"] },
  architecture: "amd64",
  os: "linux",
};

let root: string;
let service: ContainerService;
let volumes: Volumes;
let hypervisor: TestHypervisor;
let events: EventBus;
let actions: string[];
/** Puts a container's cable in. */
let plug: () => Promise<void>;

function makeService(): ContainerService {
  const networks: NetworkService = {
    check: () => undefined,
    attach: (_container, _request, plugLater) => {
      plugLater?.(() => plug());
      return Promise.resolve({
        network: "none",
        networkId: "",
        endpointId: "",
        ipAddress: "",
        ipPrefixLen: 0,
        gateway: "",
        macAddress: "",
        nameservers: [],
        search: [],
        dnsOptions: [],
      });
    },
    detach: () => Promise.resolve(),
    withdraw: () => Promise.resolve(),
    restore: () => Promise.resolve(),
    removeOrphans: () => Promise.resolve(),
    createTap: () => Promise.resolve(undefined),
    discardTap: () => undefined,
    restoreTap: () => undefined,
    ports: {
      publish: () => Promise.resolve([]),
      restore: () => Promise.resolve(),
      unpublish: () => Promise.resolve(),
    },
    disconnect: () => Promise.resolve(),
    rename: () => undefined,
    checkRequest: () => undefined,
    create: () => assert.fail("not asked in these tests"),
    remove: () => assert.fail("not asked in these tests"),
    list: () => [],
    get: () => assert.fail("not asked in these tests"),
  };
  return new ContainerService({
    dataRoot: path.join(root, "data"),
    execRoot: path.join(root, "run"),
    disks: new WritableDisks(path.join(root, "data")),
    images: {
      get: (reference) => {
        if (reference.startsWith("box")) return Promise.resolve(IMAGE);
        return reference === "foreign"
          ? Promise.resolve({ ...IMAGE, architecture: "s390x" })
          : Promise.reject(new NotFound(`No such image: ${reference}`));
      },
      disk: () => Promise.resolve({ parts: [], readonly: true }),
    },
    hypervisor,
    networks,
    volumes,
    events,
    log: pino({ level: "silent" }),
    defaults: { memoryBytes: 2 ** 29, vcpus: 1, diskBytes: 2 ** 26 },
  });
}

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), "hull-containers-"));
  hypervisor = new TestHypervisor();
  events = new EventBus();
  actions = [];
  plug = () => Promise.resolve();
  events.subscribe((event) => actions.push(event.Action));
  volumes = await Volumes.open({
    directory: path.join(root, "data", "volumes"),
    shareServer: "/nowhere/hull-share",
    events,
    log: pino({ level: "silent" }),
  });
  service = makeService();
  volumes.useContainers(service);
  await service.load();
});

afterEach(async () => {
  await Promise.all(
    service.all().map((container) => service.remove(container, true)),
  );
  await rm(root, { recursive: true });
});

function create(
  body: Record<string, unknown> = {},
  name?: string,
): Promise<Container> {
  const request = createRequestSchema.parse({ Image: "box", ...body });
  return service.create(request, name);
}

function ended(container: Container) {
  return container.wait("next-exit", new AbortController().signal);
}

/** Lets what is ready to go on do so. */
async function turns(): Promise<void> {
  for (let i = 0; i < 20; i++) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function turnsUntil(condition: () => boolean | undefined): Promise<void> {
  while (!condition()) await turns();
  await turns();
}

function statusOf(container: Container): string {
  return container.record.state.status;
}

test("a container goes from created to running to exited", async () => {
  const container = await create();
  assert.equal(statusOf(container), "created");
  await service.lifecycle.start(container);
  assert.equal(statusOf(container), "running");
  const exit = ended(container);
  hypervisor.last.exit(1, 3);
  assert.equal(await exit, 3);
  assert.equal(statusOf(container), "exited");
  await container.teardown;
  assert.deepEqual(hypervisor.last.asked, [
    "setup",
    "spawn",
    "shutdown",
    "kill",
  ]);
  assert.deepEqual(actions, ["create", "start", "die"]);
});

test("a container that is made is likely to be started", async () => {
  const image = { parts: [], readonly: true };
  const { record } = await create();
  await create({ HostConfig: { Privileged: true } });
  assert.deepEqual(hypervisor.anticipated, [
    { image, blankBytes: record.diskBytes },
    undefined,
  ]);
});

test("what the user gave wins over the image, and environments are joined", async () => {
  const { record } = await create({ Env: ["A=mine", "C=mine"] });
  assert.deepEqual(record.config.Env, ["A=mine", "B=image", "C=mine"]);
  assert.deepEqual(record.argv, ["sh"]);
  const other = await create({ Entrypoint: ["/bin/x"] });
  assert.deepEqual(other.record.argv, ["/bin/x"]);
});

test("a name is taken once", async () => {
  const first = await create({}, "web");
  await assert.rejects(create({}, "/web"), (error: Error) => {
    assert.ok(error instanceof Conflict);
    assert.match(error.message, /"\/web" is already in use by container "/);
    assert.match(error.message, new RegExp(first.id));
    return true;
  });
  await service.remove(first, false);
  assert.ok(await create({}, "web"));
});

test("a create that fails leaves nothing behind", async () => {
  await assert.rejects(create({ Image: "other" }), NotFound);
  await assert.rejects(create({ Env: ["=x"] }), InvalidParameter);
  assert.deepEqual(service.all(), []);
  assert.deepEqual(await readdir(path.join(root, "data", "containers")), []);
});

test("an image of another platform is a warning, or an error where one was asked for", async () => {
  const native = await create();
  assert.deepEqual(native.warnings, []);
  const foreign = await create({ Image: "foreign" });
  assert.match(
    foreign.warnings.join(),
    /platform \(linux\/s390x\) does not match the detected host platform/,
  );
  const request = createRequestSchema.parse({ Image: "box" });
  await assert.rejects(
    service.create(request, undefined, "linux/s390x"),
    (error: Error) =>
      error instanceof NotFound &&
      /does not match the specified platform \(linux\/s390x\)/.test(
        error.message,
      ),
  );
  assert.equal(service.all().length, 2);
});

test("containers are found by name, ID and unambiguous prefix", async () => {
  const container = await create({}, "web");
  for (const reference of [
    "web",
    "/web",
    container.id,
    container.id.slice(0, 9),
  ]) {
    assert.equal(service.get(reference), container);
  }
  assert.throws(() => service.get("we"), /No such container: we/);
  const all = [container];
  while (new Set(all.map(({ id }) => id[0])).size === all.length) {
    all.push(await create());
  }
  const first = all.at(-1)?.id[0] ?? "";
  assert.throws(
    () => service.get(first),
    /multiple IDs found with provided prefix/,
  );
});

test("a command that is not in the image is Docker's 127", async () => {
  const container = await create();
  hypervisor.onStart = (machine) => {
    machine.refuse = new AgentFailure({
      code: "executable-not-found",
      message: 'exec: "nope": executable file not found in $PATH',
    });
  };
  await assert.rejects(service.lifecycle.start(container), (error: Error) => {
    assert.ok(error instanceof InvalidParameter);
    assert.match(error.message, /executable file not found in \$PATH/);
    return true;
  });
  assert.equal(statusOf(container), "created");
  assert.equal(container.record.state.exitCode, 127);
  await container.teardown;
  assert.equal(container.machine, undefined);
});

test("the cable is put in when the guest has its setup, and before there is a process", async () => {
  const container = await create();
  const machines: number[] = [];
  let done: () => void = () => undefined;
  plug = () => {
    machines.push(hypervisor.machines.length);
    return new Promise((resolve) => (done = resolve));
  };
  const start = service.lifecycle.start(container);
  await turnsUntil(() => hypervisor.machines.at(-1)?.asked.includes("setup"));
  assert.deepEqual(machines, [1]);
  assert.deepEqual(hypervisor.last.asked, ["setup"]);
  done();
  await start;
  assert.deepEqual(hypervisor.last.asked, ["setup", "spawn"]);
});

const obstacles: Record<string, (container: Container) => unknown> = {
  "its cable": () => {
    plug = () => Promise.reject(new SystemError("no room"));
  },
  "its log": (container) => mkdir(container.log.path),
  "its disk": () => {
    hypervisor.onStart = (machine) => {
      machine.settle = () => Promise.reject(new SystemError("no room"));
    };
  },
};
for (const [what, obstruct] of Object.entries(obstacles)) {
  test(`a container that cannot have ${what} does not start, and its machine is ended`, async () => {
    const container = await create();
    await obstruct(container);
    await assert.rejects(service.lifecycle.start(container), /no room|EISDIR/);
    await container.teardown;
    assert.equal(statusOf(container), "created");
    assert.deepEqual(
      hypervisor.last.asked.filter((one) => one !== "shutdown"),
      ["setup", "kill"],
    );
    assert.equal(container.machine, undefined);
  });
}

for (const operation of ["setup", "spawn"] as const) {
  test(`a guest that never answers ${operation} does not hold its container`, async (t) => {
    const container = await create();
    hypervisor.onStart = (machine) => (machine.unanswered = [operation]);
    t.mock.timers.enable({ apis: ["setTimeout"] });
    let settled = false;
    const start = service.lifecycle
      .start(container)
      .finally(() => (settled = true));
    start.catch(() => undefined);
    await turnsUntil(() => hypervisor.machines.at(-1)?.asked.includes("spawn"));
    t.mock.timers.tick(59_000);
    await turns();
    assert.equal(settled, false);
    t.mock.timers.tick(1000);
    await assert.rejects(start, (error: Error) => {
      assert.ok(error instanceof SystemError);
      assert.match(
        error.message,
        new RegExp(`machine has not answered to ${operation} within 60 s`),
      );
      return true;
    });
    await container.teardown;
    assert.ok(hypervisor.last.asked.includes("kill"));
    assert.equal(container.record.state.exitCode, 128);
    hypervisor.onStart = () => undefined;
    t.mock.timers.reset();
    await service.lifecycle.start(container);
    assert.equal(statusOf(container), "running");
  });
}

test("a guest that never answers when it is brought back from a checkpoint does not hold its container", async (t) => {
  const container = await create();
  await service.lifecycle.start(container);
  const place = { name: "before" };
  await service.checkpoints.create(container, place, true);
  await container.teardown;
  hypervisor.onStart = (machine) => (machine.unanswered = ["wake"]);
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const start = service.lifecycle.start(container, undefined, place);
  start.catch(() => undefined);
  await turnsUntil(() => hypervisor.last.asked.includes("wake"));
  t.mock.timers.tick(60_000);
  await assert.rejects(start, /has not answered to wake within 60 s/);
  await container.teardown;
  assert.ok(hypervisor.last.asked.includes("kill"));
  assert.notEqual(statusOf(container), "running");
});

test("a guest that fills a volume has more time for its setup", async (t) => {
  const container = await create({ Volumes: { "/data": {} } });
  t.mock.method(volumes, "serve", () => Promise.resolve());
  hypervisor.onStart = (machine) => (machine.unanswered = ["setup"]);
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let settled = false;
  const start = service.lifecycle
    .start(container)
    .finally(() => (settled = true));
  start.catch(() => undefined);
  await turnsUntil(() => hypervisor.machines.at(-1)?.asked.includes("spawn"));
  t.mock.timers.tick(29 * 60_000);
  await turns();
  assert.equal(settled, false);
  t.mock.timers.tick(60_000);
  await assert.rejects(start, /has not answered to setup within 1800 s/);
  await container.teardown;
});

test("a guest that never ends a process's streams does not keep it running", async (t) => {
  const container = await create();
  hypervisor.onStart = (machine) => (machine.leavesStreamsOpen = true);
  let takeOn = () => undefined as void;
  container.stdio.attach({
    stdout: true,
    stderr: true,
    write: () => new Promise((resolve) => (takeOn = resolve)),
    end: () => undefined,
  });
  await service.lifecycle.start(container);
  const exit = ended(container);
  t.mock.timers.enable({ apis: ["setInterval"] });
  const seconds = async (count: number) => {
    for (let i = 0; i < count; i++) {
      t.mock.timers.tick(1000);
      await turns();
    }
  };
  hypervisor.last.exit(1, 3);
  // A client that is slow is not the guest's silence.
  let written = hypervisor.last.write(1, "late\n");
  await seconds(60);
  assert.equal(statusOf(container), "running");
  takeOn();
  await written;
  await seconds(9);
  // What comes begins the time anew.
  written = hypervisor.last.write(1, "later\n");
  await turns();
  takeOn();
  await written;
  await seconds(9);
  // A guest that stands still cannot speak.
  container.record.state.status = "paused";
  await seconds(60);
  assert.equal(statusOf(container), "paused");
  container.record.state.status = "running";
  await seconds(9);
  assert.equal(statusOf(container), "running");
  await seconds(1);
  assert.equal(await exit, 3);
  assert.equal(statusOf(container), "exited");
  await container.teardown;
  // Nobody waits for what comes now.
  void hypervisor.last.write(1, "much later\n");
  const lines: string[] = [];
  const signal = new AbortController().signal;
  for await (const { log } of readLog(
    container.log,
    { follow: false },
    signal,
  )) {
    lines.push(log);
  }
  assert.deepEqual(lines, ["late\n", "later\n"]);
});

test("output reaches the log and attached clients before the end is told", async () => {
  const container = await create();
  const seen: string[] = [];
  container.stdio.attach({
    stdout: true,
    stderr: false,
    write: (stream, chunk) => {
      seen.push(`${stream}: ${chunk.toString()}`);
      return Promise.resolve();
    },
    end: () => seen.push(`end (${statusOf(container)})`),
  });
  await service.lifecycle.start(container);
  assert.equal(await hypervisor.last.write(1, "hello\n"), 6);
  void hypervisor.last.write(1, "half");
  const exit = ended(container);
  hypervisor.last.exit(1, 0);
  await exit;
  assert.deepEqual(seen, ["stdout: hello\n", "stdout: half", "end (exited)"]);
});

test("a client that takes nothing holds up its process, not its burial", async () => {
  const container = await create();
  container.stdio.attach({
    stdout: true,
    stderr: true,
    write: () => new Promise(() => undefined),
    end: () => undefined,
  });
  await service.lifecycle.start(container);
  let acknowledged = false;
  void hypervisor.last.write(1, "x\n").then(() => (acknowledged = true));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(acknowledged, false);
  await service.lifecycle.kill(container, "KILL");
  assert.equal(statusOf(container), "exited");
});

test("--rm removes the container after its end", async () => {
  const container = await create({ HostConfig: { AutoRemove: true } });
  const removed = container.wait("removed", new AbortController().signal);
  await service.lifecycle.start(container);
  hypervisor.last.exit(1, 7);
  assert.equal(await removed, 7);
  assert.throws(() => service.get(container.id), NotFound);
  assert.deepEqual(await readdir(path.join(root, "data", "containers")), []);
  assert.ok(!hypervisor.last.asked.includes("shutdown"));
});

test("stop escalates to SIGKILL after its time", async () => {
  const container = await create();
  hypervisor.onStart = (machine) => (machine.deadly = [9]);
  await service.lifecycle.start(container);
  await service.lifecycle.stop(container, { timeout: 0 });
  assert.deepEqual(hypervisor.last.signals, [15, 9]);
  assert.equal(container.record.state.exitCode, 137);
  await assert.rejects(service.lifecycle.stop(container, {}), NotModified);
});

test("a machine that dies is reported with its reason", async () => {
  const container = await create();
  await service.lifecycle.start(container);
  const exit = ended(container);
  hypervisor.last.crash("killed by signal 9");
  assert.equal(await exit, 137);
  assert.equal(
    container.record.state.error,
    "the container's machine ended: killed by signal 9",
  );
});

test("on-failure restarts so many times", async () => {
  const container = await create({
    HostConfig: {
      RestartPolicy: { Name: "on-failure", MaximumRetryCount: 2 },
    },
  });
  hypervisor.onStart = (machine) => {
    setTimeout(() => machine.exit(1, 1), 5);
  };
  await service.lifecycle.start(container);
  await ended(container);
  assert.equal(hypervisor.machines.length, 3);
  assert.equal(container.record.restartCount, 2);
  assert.equal(statusOf(container), "exited");
});

test("a container that was stopped by hand is not restarted", async () => {
  const container = await create({
    HostConfig: { RestartPolicy: { Name: "always" } },
  });
  await service.lifecycle.start(container);
  await service.lifecycle.stop(container, {});
  assert.equal(statusOf(container), "exited");
  assert.equal(hypervisor.machines.length, 1);
});

test("a restart by hand starts it again in a new machine", async () => {
  const container = await create({ HostConfig: { AutoRemove: true } });
  await service.lifecycle.start(container);
  await service.lifecycle.restart(container, {});
  assert.equal(statusOf(container), "running");
  assert.equal(hypervisor.machines.length, 2);
});

test("a running container is not removed without force", async () => {
  const container = await create();
  await service.lifecycle.start(container);
  await assert.rejects(service.remove(container, false), (error: Error) => {
    assert.match(error.message, /container is running: stop the container/);
    return error instanceof Conflict;
  });
  await service.remove(container, true);
  assert.throws(() => service.get(container.id), NotFound);
});

test("an exec's end is known before its client's connection ends", async () => {
  const container = await create();
  await service.lifecycle.start(container);
  const exec = service.execs.create(container, { Cmd: ["false"] });
  const end = new Promise((resolve) => {
    exec.stdio.attach({
      stdout: true,
      stderr: true,
      write: () => Promise.resolve(),
      end: () => resolve(exec.exitCode),
    });
  });
  await service.execs.start(exec);
  await assert.rejects(service.execs.start(exec), Conflict);
  hypervisor.last.exit(2, 1);
  assert.equal(await end, 1);
  assert.ok(actions.includes("exec_create: false"));
  assert.ok(actions.includes("exec_die"));
});

test("an exec needs a running container", async () => {
  const container = await create();
  assert.throws(
    () => service.execs.create(container, { Cmd: ["true"] }),
    new RegExp(`container ${container.id} is not running`),
  );
});

test("list shows what runs, or all, newest first, by filters", async () => {
  const one = await create({ Labels: { tier: "db" } }, "one");
  await new Promise((resolve) => setTimeout(resolve, 5));
  const two = await create({}, "two");
  await service.lifecycle.start(two);
  const names = async (all: boolean, ...filters: [string, string[]][]) =>
    (await service.list({ all, filters: new Filters(filters) })).map(
      ({ record }) => record.name,
    );
  assert.deepEqual(await names(false), ["two"]);
  assert.deepEqual(await names(true), ["two", "one"]);
  assert.deepEqual(await names(true, ["label", ["tier=db"]]), ["one"]);
  assert.deepEqual(await names(false, ["status", ["created"]]), ["one"]);
  assert.deepEqual(await names(true, ["name", ["^tw"]]), ["two"]);
  assert.deepEqual(await names(true, ["ancestor", ["box"]]), ["two", "one"]);
  assert.deepEqual(await names(true, ["ancestor", ["other"]]), []);
  assert.deepEqual(await names(true, ["before", ["two"]]), ["one"]);
  await assert.rejects(names(true, ["status", ["tired"]]), InvalidParameter);
  assert.equal(one.record.name, "one");
});

test("a daemon that comes back knows the containers; a vanished machine is an end", async () => {
  const container = await create({ Labels: { a: "b" } }, "kept");
  await service.lifecycle.start(container);
  await service.close();
  service = makeService();
  await service.load();
  const again = service.get("kept");
  assert.equal(again.id, container.id);
  assert.equal(statusOf(again), "exited");
  assert.equal(again.record.state.exitCode, 255);
  assert.match(again.record.state.error, /while the daemon was not running/);
});

test("a daemon that comes back does not wait for one guest before it asks the next", async () => {
  for (const name of ["one", "two"]) {
    await service.lifecycle.start(await create({}, name));
  }
  await service.close();
  let answer: (hello: Hello) => void = () => undefined;
  const hello = new Promise<Hello>((resolve) => (answer = resolve));
  const quiet = { produced: 0, ended: false };
  const said: Hello = {
    ...(await hypervisor.last.hello),
    processes: [
      { process: 1, pid: 2, stdout: quiet, stderr: quiet, stdinReceived: 0 },
    ],
  };
  let found = 0;
  hypervisor.reattach = () => {
    const machine = new TestMachine(hypervisor.last.spec, hello);
    const resume = machine.resume.bind(machine);
    // Both are silent until both were spoken to.
    machine.resume = () => {
      if (++found === 2) answer(said);
      return resume();
    };
    return Promise.resolve(machine);
  };
  service = makeService();
  await service.load();
  assert.equal(found, 2);
});

test("inspect shows the state in Docker's form", async () => {
  const container = await create({ Tty: true }, "seen");
  await service.lifecycle.start(container);
  const view = inspectView(container, []);
  assert.equal(view.Name, "/seen");
  assert.equal(view.State.Running, true);
  assert.equal(view.State.Pid, 4711);
  assert.equal(view.Config.Tty, true);
  assert.equal(view.HostConfig.RestartPolicy?.Name, "no");
});
