import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Unavailable } from "../../errors.js";
import { panicMessage, printable } from "./console.js";
import {
  argumentsOf,
  identify,
  isRunning,
  parseEnd,
  parseStat,
} from "./process-identity.js";
import { adoptProcess, lastWords, startProcess } from "./process.js";

describe("process", { timeout: 10_000 }, () => {
  let directory: string;
  // Children do not keep the event loop alive; in the daemon, its sockets do.
  let alive: NodeJS.Timeout;
  before(() => {
    directory = mkdtempSync(join(tmpdir(), "hull-process-"));
    alive = setInterval(() => undefined, 1000);
  });
  after(() => {
    clearInterval(alive);
    rmSync(directory, { recursive: true });
  });

  test("its end is told with code or signal", async () => {
    const failing = await startProcess("sh", ["-c", "exit 3"], directory);
    assert.deepEqual(await failing.ended, { code: 3 });
    const killed = await startProcess("sleep", ["100"], directory);
    await killed.kill();
    assert.deepEqual(await killed.ended, { signal: "SIGKILL" });
    assert.equal(await isRunning(killed.identity), false);
  });

  test("it leads a session of its own and can be told apart", async () => {
    const child = await startProcess("sleep", ["100"], directory);
    const { pid } = child.identity;
    assert.equal(await isRunning(child.identity), true);
    assert.deepEqual(await argumentsOf(pid), ["sleep", "100"]);
    assert.equal(await isRunning({ ...child.identity, startTime: "1" }), false);
    assert.equal(
      await isRunning({ ...child.identity, hostBootId: "x" }),
      false,
    );
    // Its own group: killing the group of the daemon does not reach it.
    process.kill(-pid, 0);
    await child.kill();
  });

  test("an adopted process is seen to end after its connection did", async () => {
    const child = await startProcess("sleep", ["100"], directory);
    let disconnect: () => void = () => undefined;
    const adopted = adoptProcess(
      child.identity,
      new Promise((resolve) => (disconnect = resolve)),
    );
    await adopted.kill();
    await child.ended;
    disconnect();
    assert.deepEqual(await adopted.ended, {});
  });

  test("a program that is not there is Unavailable", async () => {
    await assert.rejects(
      startProcess("hull-no-such-program", [], directory),
      (error: Error) =>
        error instanceof Unavailable && /is not installed/.test(error.message),
    );
  });

  test("its last words lose QEMU's name and its warnings", async () => {
    writeFileSync(
      join(directory, "qemu.log"),
      "qemu-system-x86_64: warning: TCG doesn't support it\nqemu-system-x86_64: -m 1: too little\n\nbye\n",
    );
    assert.equal(await lastWords(directory), "-m 1: too little; bye");
    assert.equal(await lastWords(join(directory, "nowhere")), "");
  });

  test("how a process ended is read from the zombie it left, and from no other process", () => {
    const zombie = (status: number) =>
      `7 (a) Z) Z ${Array.from({ length: 18 }, (_, at) => at).join(" ")} 4711 ${"0 ".repeat(29)}${status}\n`;
    assert.deepEqual(parseEnd(zombie(9), "4711"), { signal: "SIGKILL" });
    assert.deepEqual(parseEnd(zombie(3 << 8), "4711"), { code: 3 });
    assert.deepEqual(parseEnd(zombie(9), "4712"), {});
    assert.deepEqual(parseEnd(zombie(9).replace(") Z ", ") S "), "4711"), {});
    assert.deepEqual(parseEnd("", "4711"), {});
  });

  test("a stat line is read behind any command name, and zombies are gone", () => {
    const fields = Array.from({ length: 20 }, (_, i) => String(i + 4));
    assert.equal(
      parseStat(`7 (a) b (c)) S 1 ${fields.slice(2).join(" ")} 1`),
      fields[19],
    );
    assert.equal(parseStat(`7 (x) Z 1 ${fields.join(" ")}`), undefined);
    assert.equal(parseStat(""), undefined);
  });

  test("one's own identity holds", async () => {
    const own = await identify(process.pid);
    assert(own);
    assert.equal(await isRunning(own), true);
  });
});

describe("console", () => {
  test("a guest's escape sequences do not get through", () => {
    assert.equal(printable("a\x1b[31mb\r\nc\td\x07\x9b"), "a[31mb\nc\td");
  });

  test("the words of a panic are found", () => {
    assert.equal(
      panicMessage("x\n[ 1.0] Kernel panic - not syncing: no init\n---"),
      "no init",
    );
    assert.equal(panicMessage("all is well"), undefined);
  });
});
