import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import type { MachineSpec } from "../hypervisor/index.js";
import { StartTrace } from "./start-trace.js";
import { TestMachine } from "./test-machine.js";

const spec = { id: "1" } as MachineSpec;

function machineWith(spans: { name: string; ms: number }[]): TestMachine {
  return Object.assign(new TestMachine(spec), {
    spans,
    startKind: "restored",
    fallback: "the pool was empty",
  });
}

test("spans have their place from the request on, also those that overlap", async () => {
  const trace = new StartTrace("c", performance.now() - 50);
  await Promise.all([
    trace.span("image", sleep(10)),
    trace.span("network", sleep(30)),
  ]);
  trace.ended();
  const { spans, ms } = trace.report();
  assert.deepEqual(
    spans.map(({ name }) => name),
    ["image", "network"],
  );
  const [image, network] = spans;
  assert.ok(image && network);
  assert.ok(image.at >= 50 && network.at >= 50);
  assert.ok(network.at < image.at + image.ms, "they overlap");
  assert.ok(image.ms < network.ms);
  assert.ok(ms >= 79);
});

test("a machine's own spans follow each other from its start; those that come late count", async () => {
  const own = [{ name: "process", ms: 5 }];
  const trace = new StartTrace("c");
  await trace.machine(Promise.resolve(machineWith(own)));
  own.push({ name: "restore", ms: 7 });
  const report = trace.report();
  assert.equal(report.kind, "restored");
  assert.equal(report.fallback, "the pool was empty");
  const at = (name: string) => {
    const span = report.spans.find((one) => one.name === name);
    assert.ok(span, name);
    return span.at;
  };
  const whole = at("machine: restore") - at("machine");
  assert.ok(Math.abs(whole - 5) < 0.01, String(whole));
});

test("the guest's names of its steps can neither be many nor speak to a terminal", async () => {
  const trace = new StartTrace("c");
  const timings = Object.fromEntries(
    Array.from({ length: 10_000 }, (_, i) => [
      `\u001b[2J${"x".repeat(1000)}${i}`,
      1,
    ]),
  );
  await trace.setup(() => Promise.resolve({ timings }));
  const steps = trace.report().spans.filter(({ name }) => name !== "setup");
  assert.equal(steps.length, 40);
  assert.match(steps[0]?.name ?? "", /^setup: \?\?2Jx{36}$/);
});

test("an action sent early counts from the end of the one before, and keeps its failure", async () => {
  const trace = new StartTrace("c");
  const failure = new Error("no such file");
  const failing = trace.after(sleep(30), "exec", Promise.reject(failure));
  await assert.rejects(failing, failure);
  const [span] = trace.report().spans;
  assert.ok(span && span.at >= 29, JSON.stringify(span));
});

test("only the first output counts, and none that comes long after the start", () => {
  const trace = new StartTrace("c");
  assert.equal(trace.output(), true);
  assert.equal(trace.output(), false);
  assert.ok((trace.report().firstByteMs ?? NaN) < 1000);

  const late = new StartTrace("c", performance.now() - 20_000);
  assert.equal(late.output(), false);
  assert.equal(late.report().firstByteMs, undefined);
});

test("a failed start says why", () => {
  const trace = new StartTrace("c");
  trace.ended(new Error("no kernel"));
  const { error, kind } = trace.report();
  assert.equal(error, "no kernel");
  assert.equal(kind, undefined);
});
