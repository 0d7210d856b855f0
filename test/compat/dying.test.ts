/** Containers whose machine dies or hangs, rather than their process. */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import {
  docker,
  dockerOk,
  inspect,
  removeContainers,
  start,
  uniqueName,
} from "./harness/docker.js";
import { busybox } from "./harness/environment.js";
import { fault } from "./harness/figures.js";
import { eventually } from "./harness/wait.js";

describe("a container whose machine", () => {
  const names: string[] = [];
  after(() => removeContainers(...names));

  /** Starts a container that sleeps. @returns its name and the process ID of its machine */
  async function sleeper(...flags: string[]): Promise<[string, number]> {
    const name = uniqueName("dying");
    names.push(name);
    await dockerOk([
      ...["run", "-d", "--name", name, ...flags],
      ...[busybox(), "sleep", "10000"],
    ]);
    return [name, (await inspect(name)).State.Pid];
  }

  test("is killed is dead with the reason, and its neighbours notice nothing", async (t) => {
    const [[name, pid], [other]] = await Promise.all([sleeper(), sleeper()]);
    const waiting = start(["wait", name]);
    process.kill(pid, "SIGKILL");
    assert.equal((await waiting.result).stdout, "137\n");
    const { State } = await inspect(name);
    assert.equal(State.Status, "exited");
    assert.equal(State.ExitCode, 137);
    assert.equal(State.OOMKilled, false);
    assert.match(State.Error, /machine ended: QEMU was killed by SIGKILL/);
    assert.equal(await dockerOk(["exec", other, "echo", "well"]), "well");
    fault(t, "QEMU killed: the reason is told, neighbours go on", 1, 0);
  });

  test("is killed is restarted where its policy says so", async (t) => {
    const [name, pid] = await sleeper("--restart", "on-failure:1");
    process.kill(pid, "SIGKILL");
    const now = await eventually(async () => {
      const state = await inspect(name);
      assert.equal(state.RestartCount, 1);
      assert.equal(state.State.Status, "running");
      return state;
    });
    assert.notEqual(now.State.Pid, pid);
    assert.equal(await dockerOk(["exec", name, "echo", "again"]), "again");
    fault(t, "QEMU killed: restarted by policy", 1, 0);
  });

  test("panics says so, and is not taken for one that had too little memory", async (t) => {
    const name = uniqueName("panic");
    names.push(name);
    // The guest's kernel takes a lack of memory for a reason to panic.
    const crash = "echo 2 > /proc/sys/vm/panic_on_oom && tail /dev/zero";
    const { code } = await docker([
      ...["run", "--name", name, "--privileged", "-m", "64m"],
      ...[busybox(), "sh", "-c", crash],
    ]);
    assert.equal(code, 137);
    const { State } = await inspect(name);
    assert.equal(State.ExitCode, 137);
    assert.equal(State.OOMKilled, false);
    assert.match(State.Error, /guest panicked: .*panic_on_oom/);
    fault(t, "guest panics: told apart from want of memory", 1, 0);
  });

  test("hangs is stopped all the same: signal, kill, power-off, in its time", async (t) => {
    const [name, pid] = await sleeper();
    process.kill(pid, "SIGSTOP");
    const begin = Date.now();
    try {
      await dockerOk(["stop", "-t", "2", name], { timeout: 60_000 });
    } finally {
      try {
        process.kill(pid, "SIGCONT");
      } catch {
        // As it should be: it is gone.
      }
    }
    const took = Date.now() - begin;
    assert.ok(took >= 2000, `${took} ms are too few`);
    // 2 s for the signal, 5 s to answer a SIGKILL, 1 s to quit; the rest is for a busy host.
    assert.ok(took < 15_000, `${took} ms are too many`);
    const { State } = await inspect(name);
    assert.equal(State.Status, "exited");
    assert.equal(State.ExitCode, 137);
    await dockerOk(["start", name]);
    assert.equal(await dockerOk(["exec", name, "echo", "back"]), "back");
    fault(t, "guest hangs: stopped in its time", 1, 0);
  });
});
