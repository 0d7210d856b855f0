import assert from "node:assert/strict";
import { test } from "node:test";
import {
  canonical,
  contains,
  formatAddress,
  formatSubnet,
  lastAddress,
  overlaps,
  parseAddress,
  parseInterface,
  parseSubnet,
} from "./ip.js";

test("addresses keep their value through parse and format", () => {
  for (const text of [
    "0.0.0.0",
    "172.17.0.2",
    "255.255.255.255",
    "::",
    "fd00::42:1",
    "2001:db8:1:2:3:4:5:6",
  ]) {
    assert.equal(formatAddress(parseAddress(text)), text);
  }
  assert.equal(parseAddress("128.0.0.1").value, 2n ** 31n + 1n);
  assert.equal(canonical("FD00:0:0::0042:1"), "fd00::42:1");
});

test("an interface address is its host and its subnet", () => {
  const { address, subnet } = parseInterface("172.17.3.1/16");
  assert.equal(formatAddress(address), "172.17.3.1");
  assert.equal(formatSubnet(subnet), "172.17.0.0/16");
  assert.equal(formatAddress(lastAddress(subnet)), "172.17.255.255");
  assert.equal(formatSubnet(parseSubnet("10.1.2.3")), "10.1.2.3/32");
  assert.equal(formatSubnet(parseSubnet("200.1.2.3/0")), "0.0.0.0/0");
  assert.equal(formatSubnet(parseSubnet("fd00:1:2:3::9/48")), "fd00:1:2::/48");
});

test("what is no address or prefix length is refused", () => {
  for (const text of [
    "",
    "1.2.3",
    "1.2.3.256",
    "1.2.3.4/33",
    "::1/129",
    "fe80::1%eth0",
    "a/8",
  ]) {
    assert.throws(() => parseInterface(text), RangeError, text);
  }
});

test("subnets overlap when one lies in the other", () => {
  const wide = parseSubnet("172.16.0.0/12");
  const narrow = parseSubnet("172.17.4.0/24");
  assert.ok(overlaps(wide, narrow));
  assert.ok(overlaps(narrow, wide));
  assert.ok(overlaps(narrow, narrow));
  assert.ok(!overlaps(narrow, parseSubnet("172.17.5.0/24")));
  assert.ok(contains(wide, parseAddress("172.31.255.255")));
  assert.ok(!contains(wide, parseAddress("172.32.0.0")));
  assert.ok(!contains(parseSubnet("0.0.0.0/0"), parseAddress("::1")));
});
