import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidParameter } from "../errors.js";
import { note } from "./health.js";
import {
  checkHealthcheck,
  checkOf,
  goDuration,
  mergeHealthcheck,
} from "./healthcheck.js";
import type { Health } from "./record.js";

const STARTED = Date.parse("2026-01-01T00:00:00Z");
const check = { startPeriod: 10_000, retries: 2 };

function result(exitCode: number, second: number) {
  const time = new Date(STARTED + second * 1000).toISOString();
  return { start: time, end: time, exitCode, output: `${second}` };
}

function fresh(): Health {
  return { status: "starting", failingStreak: 0, log: [] };
}

test("so many failures in a row make it unhealthy, one success healthy", () => {
  const health = fresh();
  const seen: [string, number][] = [];
  for (const [at, code] of [1, 0, 1, 1, 1, 0].entries()) {
    note(health, result(code, 20 + at), check, STARTED);
    seen.push([health.status, health.failingStreak]);
  }
  assert.deepEqual(seen, [
    ["starting", 1],
    ["healthy", 0],
    ["healthy", 1],
    ["unhealthy", 2],
    ["unhealthy", 3],
    ["healthy", 0],
  ]);
  assert.deepEqual(
    health.log.map(({ output }) => output),
    ["21", "22", "23", "24", "25"],
  );
});

test("failures of the start period do not count until it was healthy once", () => {
  const health = fresh();
  for (const second of [1, 2, 3]) {
    note(health, result(1, second), check, STARTED);
  }
  assert.deepEqual([health.status, health.failingStreak], ["starting", 0]);
  note(health, result(0, 4), check, STARTED);
  note(health, result(1, 5), check, STARTED);
  assert.deepEqual([health.status, health.failingStreak], ["healthy", 1]);
});

test("what the user left open is the image's", () => {
  const image = { Test: ["CMD", "image"], Interval: 5e9, Retries: 7 };
  assert.deepEqual(mergeHealthcheck(undefined, image), image);
  assert.deepEqual(mergeHealthcheck({ Retries: 2 }, image), {
    Test: ["CMD", "image"],
    Interval: 5e9,
    Timeout: 0,
    StartPeriod: 0,
    StartInterval: 0,
    Retries: 2,
  });
  assert.equal(
    checkOf(mergeHealthcheck({ Test: ["NONE"] }, image), undefined),
    undefined,
  );
});

test("a check in shell form runs in the image's shell; defaults are Docker's", () => {
  const config = { Test: ["CMD-SHELL", "a b"] };
  assert.deepEqual(checkOf(config, undefined), {
    argv: ["/bin/sh", "-c", "a b"],
    interval: 30_000,
    timeout: 30_000,
    startPeriod: 0,
    startInterval: 5_000,
    retries: 3,
  });
  assert.deepEqual(checkOf(config, ["/bin/ash", "-ec"])?.argv, [
    "/bin/ash",
    "-ec",
    "a b",
  ]);
});

test("what cannot be is refused", () => {
  assert.throws(
    () => checkHealthcheck({ Timeout: 5 }),
    new InvalidParameter("Timeout in Healthcheck cannot be less than 1ms"),
  );
  assert.throws(
    () => checkHealthcheck({ Retries: -1 }),
    new InvalidParameter("Retries in Healthcheck cannot be negative"),
  );
});

test("durations are written as Go writes them", () => {
  assert.deepEqual([0, 500, 1000, 1500, 90_000, 3_600_000].map(goDuration), [
    "0s",
    "500ms",
    "1s",
    "1.5s",
    "1m30s",
    "1h0m0s",
  ]);
});
