import assert from "node:assert/strict";
import { test } from "node:test";
import { AddressPool, macOf } from "./address-pool.js";
import { parseAddress, parseSubnet } from "./ip.js";

const GATEWAY = parseAddress("10.0.0.1");

function pool(): AddressPool {
  // Hosts .1 to .6, the gateway among them.
  return new AddressPool(parseSubnet("10.0.0.0/29"), [GATEWAY]);
}

function next(addresses: AddressPool): string | undefined {
  return addresses.allocate();
}

test("addresses go out in order and end before the broadcast address", () => {
  const addresses = pool();
  assert.deepEqual(
    Array.from({ length: 6 }, () => next(addresses)),
    ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", undefined],
  );
});

test("an address given back is not the next one to go out", () => {
  const addresses = pool();
  next(addresses);
  next(addresses);
  addresses.release("10.0.0.2");
  assert.equal(next(addresses), "10.0.0.4");
  next(addresses);
  next(addresses);
  assert.equal(next(addresses), "10.0.0.2");
  assert.equal(next(addresses), undefined);
});

test("a pool made again goes on where the record says", () => {
  const addresses = pool();
  addresses.last = "10.0.0.4";
  assert.equal(next(addresses), "10.0.0.5");
});

test("a last address of another subnet is ignored", () => {
  const addresses = pool();
  addresses.last = "10.9.0.4";
  assert.equal(next(addresses), "10.0.0.2");
});

test("an address is reserved once, and only inside the subnet", () => {
  const addresses = pool();
  assert.ok(addresses.reserve("10.0.0.2"));
  assert.ok(!addresses.reserve("10.0.0.2"));
  assert.ok(!addresses.reserve("10.0.0.1"));
  assert.ok(!addresses.reserve("10.0.0.8"));
  assert.equal(next(addresses), "10.0.0.3");
});

test("a MAC address is 02:42 and the bytes of the IPv4 address", () => {
  assert.equal(macOf("172.17.0.10"), "02:42:ac:11:00:0a");
});

test("a range limits what is chosen, not what may be reserved", () => {
  const addresses = new AddressPool(
    parseSubnet("10.0.0.0/24"),
    [parseAddress("10.0.0.129")],
    parseSubnet("10.0.0.128/30"),
  );
  assert.deepEqual(
    Array.from({ length: 4 }, () => next(addresses)),
    ["10.0.0.128", "10.0.0.130", "10.0.0.131", undefined],
  );
  assert.ok(addresses.reserve("10.0.0.7"));
});

test("a record's last address outside the range is no obstacle", () => {
  const addresses = new AddressPool(
    parseSubnet("10.0.0.0/24"),
    [],
    parseSubnet("10.0.0.128/30"),
  );
  addresses.last = "10.0.0.2";
  const first = next(addresses) ?? "";
  assert.match(first, /^10\.0\.0\.(128|129|130|131)$/);
});

test("IPv6 addresses go out in order, without the subnet's own", () => {
  const addresses = new AddressPool(parseSubnet("fd00::/126"), [
    parseAddress("fd00::1"),
  ]);
  assert.deepEqual(
    Array.from({ length: 3 }, () => next(addresses)),
    ["fd00::2", "fd00::3", undefined],
  );
});
