import assert from "node:assert/strict";
import { test } from "node:test";
import { costOf, parseCost } from "./process-cost.js";

test("a process's cost is read from stat and status", () => {
  const stat =
    "42 (qemu) x) S 1 42 42 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 7 0 1000 2000 300";
  const status =
    "Name:\tqemu\nVmRSS:\t    2048 kB\nRssAnon:\t    1024 kB\nRssFile:\t 8 kB\n";
  assert.deepEqual(parseCost(42, stat, status), {
    pid: 42,
    cpuNs: 2e9,
    residentBytes: 2048 * 1024,
    privateBytes: 1024 * 1024,
    threads: 7,
  });
});

test("a process of this host has a cost, one that is gone has none", async () => {
  assert.ok(((await costOf(process.pid))?.residentBytes ?? 0) > 1024 * 1024);
  assert.equal(await costOf(2 ** 30), undefined);
});
