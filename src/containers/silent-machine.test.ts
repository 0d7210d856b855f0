import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { SystemError, Unavailable } from "../errors.js";
import type { Machine } from "../hypervisor/index.js";
import { SilentMachine } from "./silent-machine.js";
import { TestHypervisor, TestMachine } from "./test-machine.js";

const RECORD = { driver: "test" };
const spec = { id: "a", directory: "/nowhere", disks: [], forwards: [] };

/** A hypervisor that answers so, one after the other. */
function answering(
  t: TestContext,
  ...answers: (Machine | Error | undefined)[]
): { hypervisor: TestHypervisor; asked: () => number } {
  // It keeps no process alive by waiting.
  const alive = setInterval(() => undefined, 1000);
  t.after(() => clearInterval(alive));
  const hypervisor = new TestHypervisor();
  const { mock } = t.mock.method(hypervisor, "reattach", () => {
    const answer = answers.shift();
    return answer instanceof Error
      ? Promise.reject(answer)
      : Promise.resolve(answer as undefined);
  });
  return { hypervisor, asked: () => mock.callCount() };
}

const silence = () => new Unavailable("does not answer");
const never = () => false;

test("a machine is asked until it answers", async (t) => {
  const machine = new TestMachine(spec);
  const { hypervisor, asked } = answering(t, silence(), machine);
  const failed = Promise.reject<undefined>(silence());
  const silent = new SilentMachine(RECORD, hypervisor, failed);
  assert.equal(await silent.answer(never), machine);
  assert.equal(asked(), 2);
});

test("an answer that comes late is taken", async (t) => {
  const { hypervisor, asked } = answering(t);
  const machine = new TestMachine(spec);
  const late = Promise.resolve(machine as Machine);
  const silent = new SilentMachine(RECORD, hypervisor, late);
  assert.equal(await silent.answer(never), machine);
  assert.equal(asked(), 0);
});

test("one that has ended gives none, and neither does one of no interest", async (t) => {
  const { hypervisor, asked } = answering(t, undefined);
  const failed = Promise.reject<undefined>(silence());
  const silent = new SilentMachine(RECORD, hypervisor, failed);
  assert.equal(await silent.answer(never), undefined);
  assert.equal(asked(), 1);
  const other = new SilentMachine(RECORD, hypervisor, failed);
  assert.equal(await other.answer(() => true), undefined);
  assert.equal(asked(), 1);
});

test("a record that is no good is not asked for again", async (t) => {
  const { hypervisor } = answering(t, new SystemError("damaged"));
  const failed = Promise.reject<undefined>(silence());
  const silent = new SilentMachine(RECORD, hypervisor, failed);
  await assert.rejects(silent.answer(never), /damaged/);
});
