import assert from "node:assert/strict";
import { test } from "node:test";
import { broadcastOf, parseMac } from "../../src/ip-address.js";

/** What is in memory, for the words of an address. */
const bytes = (words: number[]) => [
  ...Buffer.from(new Int32Array(words).buffer),
];

test("MAC addresses are read", () => {
  assert.deepEqual(
    bytes(parseMac("02:42:AC:11:00:ff")),
    [2, 0x42, 0xac, 0x11, 0, 0xff, 0, 0],
  );
  for (const text of [
    "",
    "02:42:ac:11:00",
    "02:42:ac:11:00:0",
    "02:42:ac:11:00:0 ",
    "02: 2:ac:11:00:02",
    "02:42:ac:11:00:02:",
    "2:042:ac:11:00:02",
    "02-42-ac-11-00-02",
    "02:42:ac:11:00:zz",
  ])
    assert.throws(() => parseMac(text), {
      code: "invalid",
      message: `not a MAC address: ${text}`,
    });
});

test("the broadcast address has all host bits set", () => {
  const broadcast = (address: number[], prefix: number) =>
    bytes(broadcastOf([Buffer.from(address).readInt32LE()], prefix));
  assert.deepEqual(broadcast([172, 17, 0, 2], 16), [172, 17, 255, 255]);
  assert.deepEqual(broadcast([10, 0, 0, 5], 30), [10, 0, 0, 7]);
  assert.deepEqual(broadcast([10, 0, 0, 5], 20), [10, 0, 15, 255]);
  assert.deepEqual(broadcast([10, 0, 0, 5], 0), [255, 255, 255, 255]);
  assert.deepEqual(broadcast([10, 0, 0, 5], 32), [10, 0, 0, 5]);
});
