import assert from "node:assert/strict";
import { test } from "node:test";
import { row, single, table } from "./rows.js";

const peer = { name: "peerd", summary: { median: 200, p90: 250, count: 15 } };
const hull = { median: 50, p90: 60, count: 15 };

test("a row has the ratio to its peer, and whether the goal is met", () => {
  const made = row({
    name: "run",
    unit: "ms",
    hull,
    peer,
    goal: { of: "ratio", is: "at most", value: 0.33 },
  });
  assert.equal(made.ratio, 0.25);
  assert.equal(made.goal, "≤ 0.33 × peer");
  assert.equal(made.met, true);
});

test("a goal for hull's own figure needs no peer", () => {
  const goal = { of: "hull", is: "at least", value: 51 } as const;
  const made = row({ name: "stream", unit: "MB/s", hull, goal });
  assert.equal(made.met, false);
  assert.equal(made.peer, null);
});

test("a goal for the ratio is neither met nor missed without a peer", () => {
  const goal = { of: "ratio", is: "at most", value: 1 } as const;
  assert.equal(row({ name: "x", unit: "ms", hull, goal }).met, null);
});

test("the table has a line for each row, and p90 only of repeated figures", () => {
  const text = table([
    row({ name: "run", unit: "ms", hull, peer }),
    row({ name: "size", unit: "MB", hull: single(0.861) }),
  ]);
  const lines = text.split("\n");
  assert.equal(lines.length, 4);
  assert.match(
    lines[2] ?? "",
    /run, ms .*50\.0 \(60\.0\) .*200 \(250\) peerd .*0\.25/,
  );
  assert.match(lines[3] ?? "", /size, MB .*\| 0\.86 +\| – /);
});
