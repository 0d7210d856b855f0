import assert from "node:assert/strict";
import { test } from "node:test";
import {
  dropsByDefault,
  type FirewallNetwork,
  firewallScript,
} from "./firewall.js";
import { parseSubnet } from "./ip.js";

const hull0: FirewallNetwork = {
  bridge: "hull0",
  subnets: [parseSubnet("172.17.0.0/16")],
  internal: false,
  masquerade: true,
  names: false,
};
const user: FirewallNetwork = {
  bridge: "br-1",
  subnets: [parseSubnet("172.18.0.0/16"), parseSubnet("fd00::/64")],
  internal: false,
  masquerade: true,
  names: true,
};

function script(...networks: FirewallNetwork[]): string {
  return firewallScript({ table: "hull0", taps: "hlabc", networks, ports: [] });
}

/** The rules of a chain of one family. */
function chain(text: string, family: "ip" | "ip6", name: string): string[] {
  const table = text.slice(text.indexOf(`table ${family} hull0 {`));
  const body = table.slice(table.indexOf(`chain ${name} {`));
  return body
    .slice(0, body.indexOf("}\n"))
    .split("\n")
    .slice(2)
    .map((line) => line.trim())
    .filter((line) => line !== "" && line !== "}");
}

test("the script replaces the daemon's own tables and no others", () => {
  const tables = [...script(hull0).matchAll(/table (\S+ \S+)/g)].map(
    ([, name]) => name,
  );
  assert.deepEqual(tables, [
    ...Array<string>(3).fill("ip hull0"),
    ...Array<string>(3).fill("ip6 hull0"),
  ]);
  assert.doesNotMatch(script(hull0), /flush/);
});

test("what leaves by another device is masqueraded, in each family", () => {
  const text = script(hull0, user);
  const outward = chain(text, "ip", "postrouting").filter((rule) =>
    rule.includes("oifname !="),
  );
  assert.deepEqual(outward, [
    'ip saddr 172.17.0.0/16 oifname != "hull0" masquerade',
    'ip saddr 172.18.0.0/16 oifname != "br-1" masquerade',
  ]);
  assert.deepEqual(chain(text, "ip6", "postrouting"), [
    'ip6 saddr fd00::/64 oifname != "br-1" masquerade',
    'ip6 saddr fd00::/64 oifname "br-1" ct status dnat masquerade',
  ]);
});

test("networks are kept apart: what goes to a bridge unasked is dropped before what comes from one is let out", () => {
  assert.deepEqual(chain(script(hull0, user), "ip", "forward"), [
    "oifname @bridges ct state established,related accept",
    "oifname @bridges ct status dnat accept",
    'iifname "hull0" oifname "hull0" accept',
    'iifname "br-1" oifname "br-1" accept',
    "oifname @bridges drop",
    "iifname @bridges accept",
  ]);
});

test("an internal network is neither forwarded nor masqueraded", () => {
  const text = script(hull0, { ...user, internal: true });
  assert.deepEqual(chain(text, "ip", "forward").slice(0, 2), [
    'iifname "br-1" oifname != "br-1" drop',
    'iifname != "br-1" oifname "br-1" drop',
  ]);
  assert.deepEqual(chain(text, "ip6", "postrouting"), []);
});

test("queries are limited where names are served", () => {
  const text = script(hull0, user);
  assert.equal(chain(text, "ip", "input").length, 1);
  assert.match(
    chain(text, "ip6", "input")[0] ?? "",
    /^iifname "br-1" udp dport 53 update @queries { ip6 saddr limit rate over/,
  );
});

test("a forward chain that drops by default is recognised", () => {
  const chain = (policy: string) =>
    `table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy ${policy};\n\t}\n}\n`;
  assert.ok(dropsByDefault(chain("drop")));
  assert.ok(!dropsByDefault(chain("accept")));
});
