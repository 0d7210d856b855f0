import assert from "node:assert/strict";
import { test } from "node:test";
import { dropsByDefault, firewallScript } from "./firewall.js";
import { parseSubnet } from "./ipv4.js";

test("the script replaces the daemon's own table and no other", () => {
  const script = firewallScript({
    table: "hull0",
    networks: [{ bridge: "hull0", subnet: parseSubnet("172.17.0.0/16") }],
    ports: [],
  });
  const tables = [...script.matchAll(/table ip (\S+)/g)].map(
    ([, name]) => name,
  );
  assert.deepEqual(tables, ["hull0", "hull0", "hull0"]);
  assert.match(
    script,
    /^table ip hull0\ndelete table ip hull0\ntable ip hull0 {/,
  );
  assert.doesNotMatch(script, /flush/);
});

test("what leaves by another device is masqueraded, what comes in unasked is dropped", () => {
  const script = firewallScript({
    table: "hull0",
    networks: [{ bridge: "hull0", subnet: parseSubnet("172.17.0.0/16") }],
    ports: [],
  });
  assert.match(
    script,
    /ip saddr 172\.17\.0\.0\/16 oifname != "hull0" masquerade/,
  );
  const forward = script.slice(script.indexOf("chain forward"));
  assert.deepEqual(forward.match(/[io]ifname "hull0".*/g), [
    'oifname "hull0" ct status dnat accept',
    'iifname "hull0" accept',
    'oifname "hull0" ct state established,related accept',
    'oifname "hull0" drop',
  ]);
});

test("a forward chain that drops by default is recognised", () => {
  const chain = (policy: string) =>
    `table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy ${policy};\n\t}\n}\n`;
  assert.ok(dropsByDefault(chain("drop")));
  assert.ok(!dropsByDefault(chain("accept")));
});
