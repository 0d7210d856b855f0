import assert from "node:assert/strict";
import { test } from "node:test";
import { EventLoop } from "../../src/loop.js";

const FD = 7;
const FOR_EVER = -1;
const QUIET = 100;

/** What `epoll_wait` says, one after the other: whether the descriptor has an event. */
function run(loop: EventLoop, waits: boolean[], busy = () => false): number[] {
  const asked: number[] = [];
  const over = new Error("over");
  Object.assign(globalThis, {
    sys: {
      runJobs: () => undefined,
      epollWait: (_: number, events: ArrayBuffer, milliseconds: number) => {
        const ready = waits.shift();
        if (ready === undefined) throw over;
        asked.push(milliseconds);
        if (ready) new Uint32Array(events).set([FD, 1]);
        return Number(ready);
      },
    },
  });
  assert.throws(() => loop.run(busy), over);
  return asked;
}

/** It ends with what `onError` throws. */
function makeLoop(
  onError = (error: unknown): void => {
    throw error;
  },
): EventLoop {
  const sys = { epollCreate: () => 3, epollControl: () => undefined };
  Object.assign(globalThis, { sys });
  return new EventLoop(onError);
}

test("what is put off runs once, when nothing has happened for a while", () => {
  const loop = makeLoop();
  const done: string[] = [];
  loop.add(FD, 1, () => done.push("event"));
  loop.whenQuiet(() => done.push("leisure"));
  const asked = run(loop, [true, true, false, false]);
  assert.deepEqual(done, ["event", "event", "leisure"]);
  assert.deepEqual(asked, [QUIET, QUIET, QUIET, FOR_EVER]);
});

test("it is not quiet while there is work", () => {
  const loop = makeLoop();
  let done = 0;
  let work = 2;
  loop.whenQuiet(() => done++);
  const asked = run(loop, [false, false, false], () => work-- > 0);
  assert.deepEqual(asked, [0, 0, QUIET]);
  assert.equal(done, 1);
});

test("a handler that fails keeps no other from its event, and the loop goes on", () => {
  const seen: string[] = [];
  const loop = makeLoop((error) => {
    if ((error as Error).message === "over") throw error;
    seen.push((error as Error).message);
  });
  let calls = 0;
  loop.add(FD, 1, () => {
    if (calls++ === 0) throw new Error("broken");
    seen.push("event");
  });
  run(loop, [true, true]);
  assert.deepEqual(seen, ["broken", "event"]);
});
