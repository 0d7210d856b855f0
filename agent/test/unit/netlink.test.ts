import assert from "node:assert/strict";
import { test } from "node:test";
import { parseMac } from "../../src/ip-address.js";
import { NetlinkBatch } from "../../src/netlink.js";

/** The words of an address in hexadecimal digits. */
function words(digits: string): number[] {
  const bytes = Buffer.from(digits, "hex");
  return Array.from({ length: bytes.length / 4 }, (_, i) =>
    bytes.readInt32LE(4 * i),
  );
}

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
  batch.address("a", 3, words("0a00020f"), 24, words("0a0002ff"));
  batch.defaultRoute("r", 3, words("0a000202"));
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
});

test("an IPv6 address is usable at once", () => {
  const batch = new NetlinkBatch();
  const address = "fd000000000000000000000000000002";
  batch.address("a", 3, words(address), 64);
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
  batch.removeAddress("gone", 3, words("0a00020f"), 24);
  const first = hex(batch);
  assert.match(first, /^2c00000010000100/);
  assert.match(first, /2800000015000500/);
  batch
    .clear()
    .link("down", 2, { mac: parseMac("06:05:04:03:02:01"), up: false });
  const fresh = new NetlinkBatch();
  fresh.link("down", 2, { mac: parseMac("06:05:04:03:02:01"), up: false });
  assert.equal(hex(batch), hex(fresh));
});

/** The kernel's answers, each with a message's number and the error, in the place of the messages. */
function answer(batch: NetlinkBatch, ...answers: [number, number][]): number {
  const bytes = Buffer.from(batch.buffer);
  answers.forEach(([sequence, error], i) => {
    bytes.writeUInt32LE(36, 36 * i);
    bytes.writeUInt16LE(2, 36 * i + 4);
    bytes.writeUInt32LE(sequence, 36 * i + 8);
    bytes.writeInt32LE(error, 36 * i + 16);
  });
  return 36 * answers.length;
}

test("answers are read to the last, and the first error counts", () => {
  const batch = new NetlinkBatch();
  for (const step of ["a", "b", "c"]) batch.link(step, 2, { up: true });
  assert.equal(batch.read(answer(batch, [1, 0], [2, -17])), false);
  assert.equal(batch.failure, "b: errno 17");
  // One that was cut off is none.
  assert.equal(batch.read(answer(batch, [3, -2]) - 1), false);
  assert.equal(batch.read(answer(batch, [3, -2])), true);
  assert.equal(batch.failure, "b: errno 17");
  assert.equal(batch.clear().failure, undefined);
});
