import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Daemon } from "./harness/daemon.js";
import {
  dockerOk,
  inspect,
  removeContainers,
  start,
  uniqueName,
} from "./harness/docker.js";
import { effort, random, SEED } from "./harness/effort.js";
import { busybox } from "./harness/environment.js";
import { fault } from "./harness/figures.js";
import { eventually, sleep } from "./harness/wait.js";

/** Writes numbered lines as fast as it can; on SIGTERM says how far it came. */
const WRITER =
  'trap "over=1" TERM; i=0; while [ -z "$over" ]; do i=$((i+1)); echo $i; done; echo end $i; exit 7';

describe("a daemon that is killed at random moments", () => {
  const kills = effort(5, 20);
  const daemon = Daemon.shared();
  const plain = uniqueName("numbers");
  const rotated = uniqueName("rotated");
  const brief = uniqueName("brief");

  before(async () => {
    await dockerOk([
      "run",
      "-d",
      "--name",
      plain,
      busybox(),
      "sh",
      "-c",
      WRITER,
    ]);
    await dockerOk([
      ...["run", "-d", "--name", rotated],
      ...["--log-opt", "max-size=1m", "--log-opt", "max-file=1000"],
      ...[busybox(), "sh", "-c", WRITER],
    ]);
  });
  after(async () => {
    await daemon.ping().catch(() => daemon.start());
    await removeContainers(plain, rotated, brief);
  });

  test(`loses and doubles no line of output in ${kills} kills`, async (t) => {
    t.diagnostic(`HULL_SEED=${SEED}`);
    const next = random();
    for (let kill = 0; kill < kills; kill++) {
      // Long enough to serve, or so short that it dies while it takes its machines over.
      await sleep(next() < 0.3 ? next() * 900 : 500 + next() * 1500);
      await daemon.stop("SIGKILL");
      await sleep(next() * 300);
      daemon.launch();
    }
    await eventually(() => daemon.ping(), { timeout: 60_000 });
    for (const name of [plain, rotated]) {
      await dockerOk(["stop", "-t", "30", name]);
      assert.equal((await inspect(name)).State.ExitCode, 7);
      const count = await checkNumbers(name);
      fault(t, `daemon killed ${kills} times: lines of output`, count, 0);
    }
  });

  test("knows the exit code and time of what ended while it was away", async () => {
    await dockerOk([
      ...["run", "-d", "--name", brief, busybox()],
      ...["sh", "-c", "sleep 2; date +%s; exit 33"],
    ]);
    await daemon.stop("SIGKILL");
    await sleep(6_000);
    await daemon.start();
    const { State } = await eventually(async () => {
      const ended = await inspect(brief);
      assert.equal(ended.State.Status, "exited");
      return ended;
    });
    assert.equal(State.ExitCode, 33);
    const said = Number(await dockerOk(["logs", brief])) * 1000;
    const finished = Date.parse(State.FinishedAt);
    assert.ok(
      finished >= said - 200 && finished < said + 2_500,
      `it said ${said}, and the record says ${finished}`,
    );
  });
});

/** Reads a log to its end as it comes, since it is long. @returns the last number */
async function checkNumbers(name: string): Promise<number> {
  const logs = start(["logs", name], { timeout: 180_000 });
  const { code, stdout } = await logs.result;
  assert.equal(code, 0);
  const lines = stdout.split("\n");
  assert.equal(lines.pop(), "");
  assert.equal(lines.pop(), `end ${lines.length}`);
  const wrong = lines.findIndex((line, at) => line !== String(at + 1));
  assert.equal(
    wrong,
    -1,
    `line ${wrong + 1} is ${lines[wrong]} after ${lines[wrong - 1]}`,
  );
  assert.ok(lines.length > 1000, `only ${lines.length} lines`);
  return lines.length;
}
