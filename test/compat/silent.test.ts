/** Machines that stand still without an order: nobody but their own containers waits for them. Root only: networks. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Daemon } from "./harness/daemon.js";
import {
  docker,
  dockerOk,
  inspect,
  removeContainers,
  uniqueName,
} from "./harness/docker.js";
import { busybox, environment } from "./harness/environment.js";
import { fault } from "./harness/figures.js";
import { eventually } from "./harness/wait.js";

const LINES =
  "i=0; while true; do i=$((i+1)); echo line $i; usleep 20000; done";

describe("a machine that does not answer", { timeout: 300_000 }, () => {
  const daemon = Daemon.shared();
  const network = uniqueName("silent");
  const [back, removed, stopped, well] = [
    uniqueName("back"),
    uniqueName("removed"),
    uniqueName("stopped"),
    uniqueName("well"),
  ] as const;
  const names = [back, removed, stopped, well];
  const pids = new Map<string, number>();

  const signal = (name: string, kind: NodeJS.Signals) => {
    try {
      process.kill(pids.get(name) ?? NaN, kind);
    } catch {
      // It is gone.
    }
  };

  before(async () => {
    for (const name of names) {
      await dockerOk([
        ...["run", "-d", "--name", name, busybox(), "sh", "-c", LINES],
      ]);
      pids.set(name, (await inspect(name)).State.Pid);
    }
  });
  after(async () => {
    for (const name of names) signal(name, "SIGCONT");
    await removeContainers(...names);
    await docker(["network", "rm", network]);
  });

  test("does not hold up the start of a daemon, nor the other machines", async (t) => {
    for (const name of [back, removed, stopped]) signal(name, "SIGSTOP");
    await daemon.stop("SIGKILL");
    const begin = Date.now();
    await daemon.start();
    const took = Date.now() - begin;
    // 5 s for those that do not answer, whose number does not matter; the rest is for a busy host.
    assert.ok(took < 14_000, `${took} ms until it served`);
    assert.equal(await dockerOk(["exec", well, "echo", "on"]), "on");
    const running = await dockerOk(["ps", "--format", "{{.Names}}"]);
    for (const name of names) assert.ok(running.split("\n").includes(name));
    fault(
      t,
      "machines that do not answer to a new daemon: start held up",
      3,
      0,
    );
  });

  test("is taken over when it answers, with every line of its output", async (t) => {
    signal(back, "SIGCONT");
    await eventually(
      async () => {
        const said = await docker(["exec", back, "echo", "back"]);
        assert.equal(said.stdout, "back\n", said.stderr);
      },
      { timeout: 60_000 },
    );
    const { State } = await inspect(back);
    assert.equal(State.Pid, pids.get(back));
    const seen = (await dockerOk(["logs", back])).split("\n");
    assert.deepEqual(
      seen,
      seen.map((_, at) => `line ${at + 1}`),
    );
    fault(
      t,
      "machine that answers again: taken over with all its output",
      1,
      0,
    );
  });

  test("is removed by force meanwhile", async () => {
    await dockerOk(["rm", "-f", removed], { timeout: 30_000 });
    assert.ok(!daemon.machines().includes(pids.get(removed) ?? NaN));
  });

  test("is stopped meanwhile, and its container starts anew", async () => {
    await dockerOk(["stop", "-t", "1", stopped], { timeout: 30_000 });
    const { State } = await inspect(stopped);
    assert.equal(State.Status, "exited");
    assert.match(State.Error, /did not answer/);
    await dockerOk(["start", stopped]);
    assert.equal(await dockerOk(["exec", stopped, "echo", "anew"]), "anew");
  });

  test(
    "is disconnected from a network all the same, and can be stopped then",
    { skip: !environment().root },
    async () => {
      await dockerOk(["network", "create", network]);
      await dockerOk(["network", "connect", network, well]);
      signal(well, "SIGSTOP");
      await dockerOk(["network", "disconnect", network, well], {
        timeout: 60_000,
      });
      await dockerOk(["network", "rm", network]);
      await dockerOk(["stop", "-t", "0", well], { timeout: 30_000 });
      assert.equal((await inspect(well)).State.Status, "exited");
    },
  );
});
