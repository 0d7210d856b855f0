import assert from "node:assert/strict";
import { test } from "node:test";
import { guestRules, linkLocalOf } from "./guest-rules.js";

const mac = "02:42:ac:12:00:02";

test("a guest with IPv4 may send as itself, and nothing else", () => {
  assert.deepEqual(guestRules({ mac, addresses: ["172.18.0.2"] }), [
    `ether saddr != ${mac} drop`,
    `ether type arp arp saddr ether ${mac} arp saddr ip { 0.0.0.0, 172.18.0.2 } accept`,
    "ether type ip ip saddr { 172.18.0.2 } accept",
    "drop",
  ]);
});

test("with IPv6 it may announce its own addresses, and no routes", () => {
  const rules = guestRules({ mac, addresses: ["172.18.0.2", "fd00::2"] });
  assert.ok(
    rules.includes("icmpv6 type { nd-router-advert, nd-redirect } drop"),
  );
  assert.ok(
    rules.includes(
      "icmpv6 type nd-neighbor-advert @th,64,128 != { 0xfd000000000000000000000000000002, 0xfe800000000000000042acfffe120002 } drop",
    ),
  );
  const advert = rules.findIndex((rule) => rule.includes("nd-neighbor-advert"));
  const accept = rules.findIndex((rule) => rule.startsWith("ip6 saddr { fd00"));
  assert.ok(advert < accept, "announcements are judged first");
  assert.equal(rules.at(-1), "drop");
});

test("a MAC's link-local address is the kernel's", () => {
  assert.equal(linkLocalOf("02:42:ac:11:00:02"), "fe80::42:acff:fe11:2");
  assert.equal(linkLocalOf("00:00:00:00:00:01"), "fe80::200:ff:fe00:1");
});
