import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { TestContainer, defaultSetup } from "./container.js";
import { Refused } from "./machine.js";

let box: TestContainer;

before(async () => {
  box = await TestContainer.boot();
});

after(() => box.stop());

function seed(bytes: number): Promise<unknown> {
  const entropy = randomBytes(bytes).toString("base64");
  return box.machine.request("seed", { entropy });
}

function setUpWithout(): Promise<unknown> {
  const { entropy, ...setup } = defaultSetup();
  assert.ok(entropy);
  return box.machine.request("setup", setup);
}

function invalid(error: unknown): boolean {
  return error instanceof Refused && error.error.code === "invalid";
}

test("a machine is set up without entropy only when it was given some before", async () => {
  await assert.rejects(setUpWithout(), invalid);
  await assert.rejects(seed(63), invalid);
  await assert.rejects(setUpWithout(), invalid);
  await seed(64);
  await setUpWithout();
  for (const refused of [seed(64), box.machine.request("rouse", {})])
    await assert.rejects(refused, invalid);
});
