import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { before, describe, test } from "node:test";
import { api, messageOf } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import { docker, dockerOk, inspect, ownContainers } from "./harness/docker.js";
import { busybox } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

const { named } = ownContainers();

interface State {
  State: { Status: string; ExitCode: number };
  NetworkSettings: {
    Networks: Record<string, { IPAddress: string; MacAddress: string }>;
  };
}

/** Counts in the memory of a shell; each number is written to a file before it is printed. */
const COUNT =
  "i=0; while :; do i=$((i+1)); echo $i >/count; echo $i; sleep 0.2; done";

const status = async (name: string) => (await inspect<State>(name)).State;
/** Waits until the log has this many lines. */
const counts = (name: string, wanted: number) =>
  eventually(async () => {
    const { length } = await numbers(name);
    assert.ok(length >= wanted, `${length} lines of ${wanted}`);
  });
const numbers = async (name: string) =>
  (await dockerOk(["logs", name])).split("\n").filter(Boolean).map(Number);
const refused = async (args: string[], message: RegExp) => {
  const result = await docker(args);
  assert.equal(result.code, 1, `${args.join(" ")}: ${result.stdout}`);
  assert.match(result.stderr, message);
};

describe("docker checkpoint", () => {
  const name = named("checkpoint");
  let last = 0;

  before(async () => {
    await dockerOk(["run", "-d", "--name", name, busybox(), "sh", "-c", COUNT]);
    await counts(name, 3);
  });

  test("create ends the container; start --checkpoint goes on where it was", async () => {
    const { NetworkSettings: first } = await inspect<State>(name);
    assert.equal(await dockerOk(["checkpoint", "create", name, "one"]), "one");
    const { Status, ExitCode } = await status(name);
    assert.deepEqual({ Status, ExitCode }, { Status: "exited", ExitCode: 137 });
    const counted = await numbers(name);
    last = counted.at(-1) ?? 0;

    await dockerOk(["start", "--checkpoint", "one", name]);
    assert.equal((await status(name)).Status, "running");
    await counts(name, last + 3);
    const all = await numbers(name);
    // Not one number is missing, and none came twice: neither before nor after.
    assert.deepEqual(
      all,
      all.map((_, at) => at + 1),
    );
    const { NetworkSettings: second } = await inspect<State>(name);
    const place = ({ Networks }: State["NetworkSettings"]) => [
      Networks["bridge"]?.IPAddress,
      Networks["bridge"]?.MacAddress,
    ];
    assert.deepEqual(place(second), place(first));
  });

  test("the restored container answers: exec, clock, network", async () => {
    const now = Number(await dockerOk(["exec", name, "date", "+%s"]));
    assert.ok(Math.abs(now - Date.now() / 1000) < 60, `its clock says ${now}`);
    const gateway = await dockerOk([
      ...["inspect", "-f", "{{.NetworkSettings.Gateway}}", name],
    ]);
    await dockerOk(["exec", name, "ping", "-c", "1", "-w", "20", gateway]);
  });

  test("with --leave-running it goes on, and can be brought back later, disk and memory", async () => {
    await dockerOk(["exec", name, "sh", "-c", "echo before >/mark"]);
    await dockerOk(["checkpoint", "create", "--leave-running", name, "two"]);
    assert.equal((await status(name)).Status, "running");
    const counted = (await numbers(name)).length;
    await counts(name, counted + 3);
    await dockerOk(["exec", name, "sh", "-c", "echo after >/mark"]);
    const lines = await dockerOk(["checkpoint", "ls", name]);
    assert.deepEqual(lines.split("\n"), ["CHECKPOINT NAME", "one", "two"]);

    await dockerOk(["kill", name]);
    await dockerOk(["start", "--checkpoint", "two", name]);
    assert.equal(await dockerOk(["exec", name, "cat", "/mark"]), "before");
    const count = Number(await dockerOk(["exec", name, "cat", "/count"]));
    assert.ok(count >= counted - 1 && count < counted + 30, `at ${count}`);
    await dockerOk(["kill", name]);
    // The older one is still there, and of its own time.
    await dockerOk(["start", "--checkpoint", "one", name]);
    const earlier = Number(await dockerOk(["exec", name, "cat", "/count"]));
    assert.ok(earlier >= last && earlier < last + 30, `at ${earlier}`);
    await refused(["exec", name, "cat", "/mark"], /No such file/);
  });

  test("a daemon that comes back takes the restored container over", async () => {
    const daemon = Daemon.shared();
    await daemon.stop("SIGKILL");
    await daemon.start();
    const counted = (await numbers(name)).length;
    await counts(name, counted + 3);
    assert.equal((await status(name)).Status, "running");
  });

  test("names: taken, unknown, and such as cannot be", async () => {
    await refused(
      ["checkpoint", "create", name, "one"],
      new RegExp(`checkpoint with name one already exists for container`),
    );
    assert.equal((await status(name)).Status, "running");
    await refused(
      ["checkpoint", "create", name, "../one"],
      /Invalid checkpoint ID \(\.\.\/one\), only/,
    );
    await refused(
      ["checkpoint", "rm", name, "nine"],
      /checkpoint nine does not exist for container/,
    );
    const dir = await api("POST", `/containers/${name}/checkpoints`, {
      CheckpointID: "three",
      CheckpointDir: "relative",
    });
    assert.equal(dir.status, 400);
    assert.match(messageOf(dir), /an absolute path is needed/);
    await dockerOk(["checkpoint", "rm", name, "two"]);
    assert.equal(
      await dockerOk(["checkpoint", "ls", name]),
      "CHECKPOINT NAME\none",
    );
  });

  test("of a container that ended none is made, and a start names the missing one", async () => {
    await dockerOk(["kill", name]);
    await refused(
      ["checkpoint", "create", name, "late"],
      /Container [0-9a-f]{64} is not running/,
    );
    await refused(
      ["start", "--checkpoint", "nine", name],
      /checkpoint nine does not exist for container/,
    );
    assert.equal((await status(name)).Status, "exited");
  });

  test("a plain start begins anew", async () => {
    const before = (await numbers(name)).length;
    await dockerOk(["start", name]);
    await eventually(async () =>
      assert.equal((await numbers(name))[before], 1),
    );
  });

  test("--checkpoint-dir keeps it elsewhere", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "hull-checkpoint-"));
    try {
      const dir = ["--checkpoint-dir", folder];
      await dockerOk(["checkpoint", "create", ...dir, name, "away"]);
      assert.deepEqual(await readdir(folder), ["away"]);
      assert.match(await dockerOk(["checkpoint", "ls", ...dir, name]), /away/);
      await dockerOk(["start", ...dir, "--checkpoint", "away", name]);
      assert.equal((await status(name)).Status, "running");
      await dockerOk(["exec", name, "sh", "-c", "echo kept >/mark"]);
      await dockerOk(["kill", name]);
      // A state that was cut short is refused in QEMU's words, and the container's files stay.
      await truncate(path.join(folder, "away", "machine"), 1024 * 1024);
      await refused(
        ["start", ...dir, "--checkpoint", "away", name],
        /the virtual machine could not be started: /,
      );
      await dockerOk(["start", name]);
      assert.equal(await dockerOk(["exec", name, "cat", "/mark"]), "kept");
      await dockerOk(["checkpoint", "rm", ...dir, name, "away"]);
      assert.deepEqual(await readdir(folder), []);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  test("a container with a volume is refused in words", async () => {
    const other = named("checkpoint-volume");
    await dockerOk([
      ...["run", "-d", "--name", other, "-v", "/data", busybox()],
      ...["sleep", "1000"],
    ]);
    await refused(
      ["checkpoint", "create", other, "one"],
      /cannot checkpoint a container with volumes or binds: \/data is a folder of the host/,
    );
    assert.equal((await status(other)).Status, "running");
    assert.equal(await dockerOk(["exec", other, "echo", "up"]), "up");
  });
});
