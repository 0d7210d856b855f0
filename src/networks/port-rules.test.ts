import assert from "node:assert/strict";
import { test } from "node:test";
import { portChains, type PortRule } from "./port-rules.js";

const rule = (hostIp: string, hostPort: number): PortRule => ({
  protocol: "tcp",
  hostIp,
  hostPort,
  address: "172.17.0.2",
  port: 80,
});

test("a port of one address comes before the same port of all addresses", () => {
  const text = portChains(
    [rule("0.0.0.0", 8080), rule("127.0.0.1", 8080)],
    ["hull0"],
    4,
  );
  assert.deepEqual(
    text.match(/.*dnat to.*/g)?.map((line) => line.trim()),
    [
      "ip daddr 127.0.0.1 tcp dport 8080 dnat to 172.17.0.2:80",
      "tcp dport 8080 dnat to 172.17.0.2:80",
    ],
  );
});

test("what guests send to the host's loopback is dropped on every bridge", () => {
  const text = portChains([], ["hull0", "br-1"], 4);
  assert.match(
    text,
    /iifname { "hull0", "br-1" } ip daddr 127\.0\.0\.0\/8 drop/,
  );
});

test("without a bridge there are no chains", () => {
  assert.equal(portChains([], [], 4), "");
});

test("IPv6 is rewritten to IPv6, and what is for ::1 is left alone", () => {
  const rules = [
    rule("0.0.0.0", 8080),
    { ...rule("::", 8080), address: "fd00::2" },
  ];
  const text = portChains(rules, ["hull0"], 6);
  assert.deepEqual(
    text.match(/.*(dnat to|return).*/g)?.map((line) => line.trim()),
    ["ip6 daddr ::1 return", "tcp dport 8080 dnat to [fd00::2]:80"],
  );
  assert.doesNotMatch(text, /127\.0\.0\.0/);
});
