import assert from "node:assert/strict";
import { test } from "node:test";
import { median, percentile, summarize } from "./statistics.js";

test("the median of an even number of samples lies between the middle two", () => {
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([7]), 7);
});

test("a percentile is a sample that was measured", () => {
  const samples = [10, 9, 8, 7, 6, 5, 4, 3, 2, 1];
  assert.equal(percentile(samples, 0.9), 9);
  assert.equal(percentile(samples, 0), 1);
  assert.equal(percentile(samples, 1), 10);
  assert.deepEqual(summarize(samples), { median: 5.5, p90: 9, count: 10 });
});

test("no samples have no median", () => {
  assert.throws(() => median([]), RangeError);
  assert.throws(() => percentile([], 0.5), RangeError);
});
