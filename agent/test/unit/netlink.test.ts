import assert from "node:assert/strict";
import { test } from "node:test";
import { parseIp, parseMac } from "../../src/ip-address.js";
import { NetlinkBatch, parseAnswers } from "../../src/netlink.js";

function hex(batch: NetlinkBatch): string {
  batch.close();
  return Buffer.from(batch.buffer, 0, batch.length).toString("hex");
}

// Field by field as rtnetlink(7) has them: header, fixed part, attributes.
test("a link's name, MAC address and MTU are one message", () => {
  const batch = new NetlinkBatch();
  batch.link("x", 2, {
    name: "eth0",
    mac: parseMac("02:42:ac:11:00:02"),
    mtu: 1500,
    up: true,
  });
  assert.equal(
    hex(batch),
    [
      ...["40000000", "1000", "0500", "01000000", "00000000"],
      ...["00000000", "02000000", "01000000", "01000000"],
      ...["0900", "0300", "6574683000000000"],
      ...["0a00", "0100", "0242ac1100020000"],
      ...["0800", "0400", "dc050000"],
    ].join(""),
  );
});

test("an address has its broadcast, a route its gateway and device", () => {
  const batch = new NetlinkBatch();
  batch.address("a", 3, parseIp("10.0.2.15"), 24, parseIp("10.0.2.255"));
  batch.defaultRoute("r", 3, parseIp("10.0.2.2"));
  assert.equal(
    hex(batch),
    [
      ...["30000000", "1400", "0105", "01000000", "00000000"],
      ...["02180000", "03000000"],
      ...[
        "08000200",
        "0a00020f",
        "08000100",
        "0a00020f",
        "08000400",
        "0a0002ff",
      ],
      ...["2c000000", "1800", "0505", "02000000", "00000000"],
      ...["02000000", "fe030001", "00000000"],
      ...["08000500", "0a000202", "08000400", "03000000"],
    ].join(""),
  );
  assert.deepEqual(batch.steps, ["a", "r"]);
});

test("an IPv6 address is usable at once", () => {
  const batch = new NetlinkBatch();
  batch.address("a", 3, parseIp("fd00::2"), 64);
  const address = "fd000000000000000000000000000002";
  assert.equal(
    hex(batch),
    [
      ...["40000000", "1400", "0505", "01000000", "00000000"],
      ...["0a400200", "03000000"],
      ...["14000200", address, "14000100", address],
    ].join(""),
  );
});

test("only the last message is acknowledged, and a batch is used again", () => {
  const batch = new NetlinkBatch();
  batch.link("up", 2, { mac: parseMac("01:02:03:04:05:06"), up: true });
  batch.removeAddress("gone", 3, parseIp("10.0.2.15"), 24);
  const first = hex(batch);
  assert.match(first, /^2c00000010000100/);
  assert.match(first, /2800000015000500/);
  batch
    .clear()
    .link("down", 2, { mac: parseMac("06:05:04:03:02:01"), up: false });
  assert.deepEqual(batch.steps, ["down"]);
  const fresh = new NetlinkBatch();
  fresh.link("down", 2, { mac: parseMac("06:05:04:03:02:01"), up: false });
  assert.equal(hex(batch), hex(fresh));
});

test("answers are told apart, and a cut one is left out", () => {
  const answer = (sequence: number, error: number) => {
    const bytes = Buffer.alloc(36);
    bytes.writeUInt32LE(36, 0);
    bytes.writeUInt16LE(2, 4);
    bytes.writeUInt32LE(sequence, 8);
    bytes.writeInt32LE(error, 16);
    return bytes;
  };
  const bytes = Buffer.concat([
    answer(1, 0),
    answer(2, -17),
    answer(3, 0).subarray(0, 20),
  ]);
  const words = new Int32Array(new Uint8Array(bytes).buffer);
  assert.deepEqual(parseAnswers(words, bytes.length), [
    { sequence: 1, errno: 0 },
    { sequence: 2, errno: 17 },
  ]);
});
