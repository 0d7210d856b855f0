import assert from "node:assert/strict";
import { test } from "node:test";
import { hasTool } from "./command.js";
import { firstFailure, IpBatch } from "./ip-batch.js";

const skip = !(await hasTool("ip")) && "the program ip is not installed";

test("of several failures the first is told, with the command it belongs to", () => {
  const stderr = [
    'Cannot find device "a"',
    "Command failed -:8",
    'Cannot find device "b"',
    "Command failed -:9",
    "",
  ].join("\n");
  assert.equal(
    firstFailure(stderr, ["link set a up", "link set b up"], 7),
    'ip link set a up: Cannot find device "a"',
  );
});

test("the end marker alone is no failure", () => {
  const stderr = 'Object "x" is unknown\nCommand failed -:2\n';
  assert.equal(firstFailure(stderr, ["link"], 0), undefined);
});

test(
  "groups that succeed and groups that fail do not disturb each other",
  { skip },
  async (t) => {
    const ip = new IpBatch();
    t.after(() => ip.close());
    const nowhere = "link show dev hull-no-such-dev";
    const results = await Promise.allSettled([
      ip.run(["link show dev lo"]),
      ip.run(["link show dev lo", nowhere, "link show dev lo"]),
      ip.run([]),
      // Not understood: ip ends over it and is started again.
      ip.run(["link set dev lo no-such-word"]),
      ip.run(["link show dev lo"]),
    ]);
    assert.deepEqual(
      results.map(({ status }) => status),
      ["fulfilled", "rejected", "fulfilled", "rejected", "fulfilled"],
    );
    const [, second] = results;
    assert.ok(second?.status === "rejected");
    assert.match(
      String(second.reason),
      /^SystemError: ip link show dev hull-no-such-dev: /,
    );
  },
);

test("closing ends the process", { skip }, async () => {
  const processes = () =>
    process.getActiveResourcesInfo().filter((name) => name === "ProcessWrap");
  const ip = new IpBatch();
  await ip.run(["link show dev lo"]);
  assert.equal(processes().length, 1);
  await ip.close();
  await ip.close();
  // The handle of an ended process goes at the end of the event loop's turn.
  await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(processes().length, 0);
});
