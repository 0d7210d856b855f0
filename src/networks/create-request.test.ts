import assert from "node:assert/strict";
import { test } from "node:test";
import {
  Forbidden,
  InvalidParameter,
  NotFound,
  NotImplemented,
} from "../errors.js";
import {
  bridgeOptions,
  createNetworkSchema,
  networkSpec,
  type NetworkSpec,
} from "./create-request.js";

function spec(body: object): NetworkSpec {
  return networkSpec(createNetworkSchema.parse(body));
}

test("what the CLI sends for a plain network is one of IPv4 with a subnet to be chosen", () => {
  const made = spec({
    Name: "front",
    Driver: "bridge",
    Scope: "",
    IPAM: { Driver: "default", Options: {}, Config: [] },
    Internal: false,
    Attachable: false,
    Ingress: false,
    ConfigOnly: false,
    ConfigFrom: null,
    Options: {},
    Labels: {},
  });
  assert.deepEqual(made, {
    name: "front",
    internal: false,
    attachable: false,
    ipv4: true,
    ipv6: false,
    subnets: [],
    ipamOptions: {},
    options: {},
    labels: {},
  });
});

test("an IPv6 subnet counts where IPv6 is asked for", () => {
  const IPAM = { Config: [{ Subnet: "fd00:1::/64" }] };
  assert.deepEqual(spec({ Name: "a", IPAM }).subnets, []);
  const made = spec({ Name: "a", EnableIPv6: true, EnableIPv4: false, IPAM });
  assert.deepEqual(made.subnets, [{ subnet: "fd00:1::/64", auxAddresses: {} }]);
  assert.equal(made.ipv4, false);
  const option = { "com.docker.network.enable_ipv6": "true" };
  assert.equal(spec({ Name: "a", Options: option }).ipv6, true);
});

test("all that is wrong with the subnets is said at once", () => {
  const Config = [
    { Subnet: "10.0.0.1/24", Gateway: "10.9.0.1" },
    { Subnet: "nonsense" },
  ];
  assert.throws(() => spec({ Name: "a", IPAM: { Config } }), {
    name: "InvalidParameter",
    message: `invalid network config:
* invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24
* invalid gateway 10.9.0.1: parent subnet 10.0.0.0/24 doesn't contain this address
* invalid subnet nonsense: invalid CIDR block notation`,
  });
});

test("ranges are parts of their subnets", () => {
  const range = (IPRange: string) =>
    spec({ Name: "a", IPAM: { Config: [{ Subnet: "10.0.0.0/24", IPRange }] } });
  assert.equal(range("10.0.0.128/25").subnets[0]?.ipRange, "10.0.0.128/25");
  assert.throws(() => range("10.0.0.0/16"), /is bigger than its parent/);
  assert.throws(() => range("10.0.0.9/25"), /it should be 10\.0\.0\.0\/25/);
  assert.throws(() => range("10.0.1.0/25"), /doesn't contain ip-range/);
  assert.throws(() => range("fd00::/64"), /parent subnet is an IPv4 block/);
});

test("what hull has not is refused by the class that says why", () => {
  for (const [body, error] of [
    [{ Name: " " }, InvalidParameter],
    [{ Name: "a\nb" }, InvalidParameter],
    [{ Name: "host" }, Forbidden],
    [{ Name: "a", Driver: "overlay" }, Forbidden],
    [{ Name: "a", Driver: "weave" }, NotFound],
    [{ Name: "a", IPAM: { Driver: "dhcp" } }, NotFound],
    [{ Name: "a", Driver: "ipvlan" }, NotImplemented],
    [{ Name: "a", ConfigOnly: true }, NotImplemented],
    [{ Name: "a", EnableIPv4: false }, InvalidParameter],
  ] as const) {
    assert.throws(() => spec(body), error, JSON.stringify(body));
  }
});

test("options of the bridge are read, and those without effect refused", () => {
  assert.deepEqual(
    bridgeOptions({
      "com.docker.network.bridge.name": "br0",
      "com.docker.network.bridge.enable_icc": "false",
      "com.docker.network.driver.mtu": "1400",
      "com.example.other": "x",
    }),
    { name: "br0", icc: false, masquerade: true, mtu: 1400 },
  );
  const option = (name: string, value: string) => () =>
    bridgeOptions({ [`com.docker.network.${name}`]: value });
  assert.throws(option("bridge.enable_icc", "maybe"), InvalidParameter);
  assert.throws(option("bridge.name", "a b"), InvalidParameter);
  assert.throws(option("driver.mtu", "1e9"), InvalidParameter);
  assert.throws(option("bridge.gateway_mode_ipv4", "routed"), NotImplemented);
  assert.doesNotThrow(option("bridge.gateway_mode_ipv4", "nat"));
});
