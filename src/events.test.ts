import assert from "node:assert/strict";
import { test } from "node:test";
import { EventBus, type EventMessage } from "./events.js";
import { Filters } from "./filters.js";

function start(bus: EventBus, id: string, attributes = {}) {
  return bus.publish({
    Type: "container",
    Action: "start",
    Actor: { ID: id, Attributes: { image: "busybox:latest", ...attributes } },
  });
}

test("a container's event carries times and the older fields", () => {
  const event = start(new EventBus(), "abc");
  assert.equal(event.status, "start");
  assert.equal(event.id, "abc");
  assert.equal(event.from, "busybox:latest");
  assert.equal(event.scope, "local");
  assert.ok(Math.abs(event.time - Date.now() / 1000) < 5);
  assert.equal(event.time, Math.floor(event.timeNano / 1e9));
});

test("a network's event has no older fields", () => {
  const event = new EventBus().publish({
    Type: "network",
    Action: "create",
    Actor: { ID: "n", Attributes: {} },
  });
  assert.deepEqual(Object.keys(event).sort(), [
    "Action",
    "Actor",
    "Type",
    "scope",
    "time",
    "timeNano",
  ]);
});

test("events of one moment have rising, distinct times", () => {
  const bus = new EventBus();
  let last = 0;
  for (let i = 0; i < 100; i++) {
    const { timeNano } = start(bus, "a");
    assert.ok(timeNano > last);
    last = timeNano;
  }
});

test("history gives back what happened between two times, both included", () => {
  const bus = new EventBus();
  const events = ["a", "b", "c"].map((id) => start(bus, id));
  const ids = bus
    .history(events[0]!.timeNano + 512, events[2]!.timeNano)
    .map((event) => event.Actor.ID);
  assert.deepEqual(ids, ["b", "c"]);
});

test("only the last 1000 events are kept", () => {
  const bus = new EventBus();
  for (let i = 0; i < 1010; i++) start(bus, String(i));
  const kept = bus.history(0);
  assert.equal(kept.length, 1000);
  assert.equal(kept[0]!.Actor.ID, "10");
});

test("a listener that throws does not keep others from hearing", () => {
  const bus = new EventBus();
  const heard: EventMessage[] = [];
  bus.subscribe(() => {
    throw new Error("mine");
  });
  const stop = bus.subscribe((event) => heard.push(event));
  start(bus, "a");
  stop();
  start(bus, "b");
  assert.deepEqual(
    heard.map((event) => event.Actor.ID),
    ["a"],
  );
});

const passes: [string, Record<string, string[]>, boolean][] = [
  ["its ID's prefix", { container: ["abc"] }, true],
  ["its name", { container: ["web"] }, true],
  ["another name", { container: ["db"] }, false],
  ["one of two names", { container: ["db", "web"] }, true],
  ["its type", { type: ["container"] }, true],
  ["another type", { type: ["image"] }, false],
  ["its action", { event: ["start"] }, true],
  ["a prefix of its action", { event: ["sta"] }, false],
  ["its image", { image: ["busybox:latest"] }, true],
  ["its image without a tag", { image: ["busybox"] }, true],
  ["another image", { image: ["debian"] }, false],
  ["a label it has", { label: ["tier"] }, true],
  ["a label's value", { label: ["tier=front"] }, true],
  ["a label's other value", { label: ["tier=back"] }, false],
  ["two labels, one missing", { label: ["tier", "zone"] }, false],
];
for (const [what, fields, expected] of passes) {
  test(`filter by ${what}: ${expected ? "passes" : "does not pass"}`, () => {
    const bus = new EventBus();
    start(bus, "abcdef", { name: "web", tier: "front" });
    const found = bus.history(
      0,
      undefined,
      new Filters(Object.entries(fields)),
    );
    assert.equal(found.length, expected ? 1 : 0);
  });
}

test("exec and health events are found by the part before the colon", () => {
  const bus = new EventBus();
  bus.publish({
    Type: "container",
    Action: "exec_start: sh",
    Actor: { ID: "a", Attributes: {} },
  });
  const filters = new Filters([["event", ["exec_start"]]]);
  assert.equal(bus.history(0, undefined, filters).length, 1);
});
