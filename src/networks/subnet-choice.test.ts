import assert from "node:assert/strict";
import { test } from "node:test";
import { formatSubnet, parseAddress, parseSubnet } from "./ip.js";
import {
  chooseSubnet,
  collisions,
  DEFAULT_SUBNETS,
  randomIPv6Subnet,
} from "./subnet-choice.js";

const DEFAULT_ROUTE = { dst: "default", dev: "eth0" };

function choose(
  routes: { dst: string; dev?: string }[],
  avoid: string[] = [],
): string | undefined {
  const subnet = chooseSubnet(routes, avoid.map(parseAddress), "hull0");
  return subnet && formatSubnet(subnet);
}

test("the first choice is Docker's, and a default route is no obstacle", () => {
  assert.equal(choose([DEFAULT_ROUTE]), "172.17.0.0/16");
});

test("a subnet the host has a route to, or a part of, is passed over", () => {
  assert.equal(
    choose([
      { dst: "172.17.0.0/16", dev: "docker0" },
      { dst: "172.18.7.0/24", dev: "eth1" },
      { dst: "172.19.0.1", dev: "eth1" },
    ]),
    "172.20.0.0/16",
  );
});

test("a wide private route leaves the next pool", () => {
  assert.equal(
    choose([{ dst: "172.16.0.0/12", dev: "vpn0" }]),
    "192.168.0.0/20",
  );
});

test("the resolvers' subnet is passed over", () => {
  assert.equal(choose([DEFAULT_ROUTE], ["172.17.3.4"]), "172.18.0.0/16");
});

test("a route over the bridge itself is no obstacle", () => {
  assert.equal(
    choose([{ dst: "172.17.0.0/16", dev: "hull0" }]),
    "172.17.0.0/16",
  );
});

test("none is chosen when every candidate is in use", () => {
  assert.equal(
    choose([
      { dst: "172.16.0.0/12", dev: "vpn0" },
      { dst: "192.168.0.0/16", dev: "vpn0" },
    ]),
    undefined,
  );
});

test("collisions are named, the bridge's own route is not one", () => {
  assert.deepEqual(
    collisions(
      parseSubnet("172.17.0.0/16"),
      [
        DEFAULT_ROUTE,
        { dst: "172.17.0.0/16", dev: "hull0" },
        { dst: "172.17.9.0/24", dev: "eth1" },
      ],
      "hull0",
    ),
    ["172.17.9.0/24"],
  );
});

test("the default candidates do not overlap", () => {
  const texts = DEFAULT_SUBNETS.map(formatSubnet);
  assert.equal(new Set(texts).size, 31);
  assert.equal(texts[14], "172.31.0.0/16");
  assert.equal(texts[30], "192.168.240.0/20");
});

test("subnets of other networks are passed over", () => {
  const subnet = chooseSubnet([DEFAULT_ROUTE], [], "hull0", [
    parseSubnet("172.17.0.0/16"),
    parseSubnet("172.18.128.0/17"),
  ]);
  assert.equal(subnet && formatSubnet(subnet), "172.19.0.0/16");
});

test("an IPv6 subnet is a /64 of unique local addresses, another one each time", () => {
  const [a, b] = [randomIPv6Subnet(), randomIPv6Subnet()].map(formatSubnet);
  assert.match(a ?? "", /^fd[0-9a-f:]+::\/64$/);
  assert.notEqual(a, b);
});
