import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { whileTheySettle } from "./within.js";

const never = new Promise<void>(() => undefined);

async function took(waiting: Promise<void>): Promise<number> {
  const begin = performance.now();
  await waiting;
  return performance.now() - begin;
}

test("it is waited for as long as one after the other settles", async () => {
  let last = false;
  const work = [300, 600, 900].map((ms) => sleep(ms));
  const failing = sleep(1200).then(() => {
    last = true;
    throw new Error("in vain");
  });
  await whileTheySettle([...work, failing], 1000, 60_000);
  assert.ok(last);
});

test("what hangs is waited for no longer than the limit", async () => {
  assert.ok((await took(whileTheySettle([], 60_000, 60_000))) < 1000);
  const some = [sleep(50), never];
  assert.ok((await took(whileTheySettle(some, 200, 60_000))) >= 200);
  const slow = [100, 200, 300, 400, 500].map((ms) => sleep(ms, ms));
  const most = took(whileTheySettle([...slow, never], 60_000, 250));
  assert.ok((await most) < 10_000);
});
