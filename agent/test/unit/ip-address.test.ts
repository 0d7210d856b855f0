import assert from "node:assert/strict";
import { test } from "node:test";
import type { Failure } from "../../src/failure.js";
import {
  broadcastOf,
  isIpv6,
  parseCidr,
  parseIp,
  parseMac,
} from "../../src/ip-address.js";

/** What is in memory, for the words of an address. */
const bytes = (words: number[]) => [
  ...Buffer.from(new Int32Array(words).buffer),
];
const hex = (words: number[]) => Buffer.from(bytes(words)).toString("hex");

test("addresses of both families are read", () => {
  assert.deepEqual(bytes(parseIp("192.168.0.1")), [192, 168, 0, 1]);
  assert.deepEqual(bytes(parseIp("255.255.255.255")), [255, 255, 255, 255]);
  assert.equal(isIpv6(parseIp("192.168.0.1")), false);
  assert.equal(isIpv6(parseIp("::")), true);
  assert.equal(hex(parseIp("::")), "0".repeat(32));
  assert.equal(hex(parseIp("::1")), "1".padStart(32, "0"));
  assert.equal(
    hex(parseIp("fd00::12:ABCD")),
    "fd00000000000000000000000012abcd",
  );
  assert.equal(
    hex(parseIp("1:2:3:4:5:6:7:8")),
    "00010002000300040005000600070008",
  );
  assert.equal(hex(parseIp("1::")), "0001".padEnd(32, "0"));
  assert.equal(
    hex(parseIp("::ffff:10.0.0.1")),
    "00000000000000000000ffff0a000001",
  );
});

test("a prefix length belongs to its family", () => {
  const { address, prefix } = parseCidr("10.1.2.3/8");
  assert.deepEqual(bytes(address), [10, 1, 2, 3]);
  assert.equal(prefix, 8);
  assert.equal(parseCidr("10.1.2.3").prefix, 32);
  assert.equal(parseCidr("::1").prefix, 128);
});

for (const text of [
  "",
  "1.2.3",
  "1.2.3.256",
  "1.2.3.4.5",
  "1..2.3",
  "1.2.3.",
  ".1.2.3",
  "1.2.3.0004",
  "1.2.3.4 ",
  "a.b.c.d",
  ":",
  ":::",
  "1::2::3",
  "1:2:3:4:5:6:7",
  "1:2:3:4:5:6:7:8:9",
  "1:2:3:4:5:6:7:8::",
  "12345::",
  "::1.2.3",
  "g::",
  "1:2:3:4:5:6:7: 8",
  "1:2:3:4:5:6:7:8 ",
  "1:2:3:4:5:6:7:0x8",
  "1.2.3.4/33",
  "::1/129",
  "1.2.3.4/",
  "1.2.3.4/x",
])
  test(`${JSON.stringify(text)} is refused`, () => {
    assert.throws(
      () => parseCidr(text),
      ({ code, message }: Failure) =>
        code === "invalid" && message.includes(`: ${text.split("/")[0]}`),
    );
  });

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
  const broadcast = (address: string, prefix: number) =>
    bytes(broadcastOf(parseIp(address), prefix));
  assert.deepEqual(broadcast("172.17.0.2", 16), [172, 17, 255, 255]);
  assert.deepEqual(broadcast("10.0.0.5", 30), [10, 0, 0, 7]);
  assert.deepEqual(broadcast("10.0.0.5", 20), [10, 0, 15, 255]);
  assert.deepEqual(broadcast("10.0.0.5", 0), [255, 255, 255, 255]);
  assert.deepEqual(broadcast("10.0.0.5", 32), [10, 0, 0, 5]);
});
