import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Daemon, runDaemon } from "./harness/daemon.js";
import {
  docker,
  dockerOk,
  inspect,
  removeContainers,
  start,
  uniqueName,
} from "./harness/docker.js";
import { busybox } from "./harness/environment.js";
import { eventually, sleep } from "./harness/wait.js";

describe("a daemon that is killed and started again", () => {
  const writer = uniqueName("writer");
  const short = uniqueName("short");
  const server = uniqueName("stdin");
  const stopped = uniqueName("stopped");
  const daemon = Daemon.shared();

  before(async () => {
    await dockerOk([
      "run",
      "-d",
      "--name",
      writer,
      busybox(),
      "sh",
      "-c",
      "i=0; while true; do i=$((i+1)); echo line $i; usleep 20000; done",
    ]);
    await dockerOk([
      "run",
      "-d",
      "--name",
      short,
      busybox(),
      "sh",
      "-c",
      "sleep 4; echo last words; exit 21",
    ]);
    await dockerOk([
      "run",
      "-d",
      "-i",
      "--name",
      server,
      busybox(),
      "sh",
      "-c",
      'while read line; do echo "got $line"; done',
    ]);
    await dockerOk(["create", "--name", stopped, busybox(), "echo", "later"]);
  });
  after(() => removeContainers(writer, short, server, stopped));

  test("its containers run on, and one that ends meanwhile has its exit code", async () => {
    const before = await inspect(writer);
    const machines = daemon.machines();
    await daemon.stop("SIGKILL");
    // The short one ends while nobody looks.
    await sleep(5_000);
    assert.deepEqual(daemon.machines().sort(), machines.sort());
    await daemon.start();

    const now = await inspect(writer);
    assert.equal(now.State.Running, true);
    assert.equal(now.State.Pid, before.State.Pid);
    assert.equal(now.State.StartedAt, before.State.StartedAt);
    assert.equal(now.RestartCount, 0);
    await eventually(async () => {
      const ended = await inspect(short);
      assert.equal(ended.State.Status, "exited");
      assert.equal(ended.State.ExitCode, 21);
      const ran =
        Date.parse(ended.State.FinishedAt) - Date.parse(ended.State.StartedAt);
      assert.ok(ran > 3_000 && ran < 8_500, `it ran for ${ran} ms`);
    });
    assert.equal(await dockerOk(["logs", short]), "last words");
    assert.equal((await inspect(stopped)).State.Status, "created");
  });

  test("no line of the log is missing or doubled", async () => {
    await daemon.crashAndRestart();
    await sleep(1_000);
    const lines = (await dockerOk(["logs", writer])).split("\n");
    assert.ok(lines.length > 100, String(lines.length));
    assert.deepEqual(
      lines,
      lines.map((_, at) => `line ${at + 1}`),
    );
    const follow = start(["logs", "-f", "--tail", "1", writer]);
    await follow.stdoutMatches(/(line \d+\n){10}/);
    follow.kill("SIGKILL");
  });

  test("exec, attach, stop and start work as before", async () => {
    assert.equal(await dockerOk(["exec", writer, "echo", "inside"]), "inside");
    const attached = start(["attach", server]);
    await sleep(500);
    attached.stdin.write("after the crash\n");
    await attached.stdoutMatches(/got after the crash/);
    attached.kill("SIGKILL");
    await dockerOk(["stop", "-t", "0", writer]);
    assert.equal((await inspect(writer)).State.ExitCode, 137);
    assert.equal(await dockerOk(["start", "-a", stopped]), "later");
  });

  test("names are still taken, and images still there", async () => {
    const taken = await docker(["create", "--name", server, busybox()]);
    assert.equal(taken.code, 1);
    assert.match(taken.stderr, /is already in use by container/);
    assert.equal((await docker(["image", "inspect", busybox()])).code, 0);
  });

  test("a clean end leaves containers running, too, and the socket goes", async () => {
    await daemon.stop("SIGTERM");
    await assert.rejects(daemon.ping());
    await daemon.start();
    assert.equal((await inspect(server)).State.Running, true);
  });

  test("a second daemon on the same folders is refused", async () => {
    const { code, output } = await runDaemon([
      "--data-root",
      daemon.dataRoot,
      "--exec-root",
      daemon.execRoot,
      "-H",
      `unix://${daemon.socket}2`,
    ]);
    assert.notEqual(code, 0);
    assert.match(output, /another|already|in use/i);
    await daemon.ping();
  });
});
