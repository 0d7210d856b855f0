import assert from "node:assert/strict";
import { test } from "node:test";
import type { Endpoint } from "../networks/index.js";
import {
  defaultRoutes,
  freeSlot,
  interfacesOf,
  place,
} from "./attach-networks.js";
import type { ContainerRecord, NetworkRequest } from "./record.js";

function endpoint(network: string, slot: number, gateways: string[]): Endpoint {
  const setup = {
    index: 0,
    name: "eth0",
    mac: "02:42:00:00:00:01",
    mtu: 1500,
    addresses: [`10.0.${slot}.2/24`],
    gateways,
  };
  place(setup, slot);
  return {
    network,
    networkId: "",
    endpointId: "",
    nic: { kind: "tap", mac: setup.mac, device: `tap${slot}` },
    interface: setup,
    ipAddress: "",
    ipPrefixLen: 24,
    gateway: gateways[0] ?? "",
    macAddress: setup.mac,
    nameservers: [],
    search: [],
    dnsOptions: [],
  };
}

function record(
  endpoints: Endpoint[],
  networks: NetworkRequest[] = [],
  taps = ["tap0", "tap1", "tap2"],
): ContainerRecord {
  return { endpoints, networks, taps } as unknown as ContainerRecord;
}

test("a slot is free while no network is in it", () => {
  const one = record([endpoint("front", 1, [])]);
  assert.equal(freeSlot(one), 0);
  const full = [0, 1, 2].map((slot) => endpoint(`n${slot}`, slot, []));
  assert.equal(freeSlot(record(full)), undefined);
  assert.equal(freeSlot(record([], [], [])), undefined);
});

test("the default gateway is of the first name, unless another has priority", () => {
  const endpoints = [
    endpoint("zoo", 0, ["10.0.0.1"]),
    endpoint("ark", 1, ["10.0.1.1", "fd00::1"]),
    endpoint("aaa-internal", 2, []),
  ];
  assert.deepEqual(defaultRoutes(record(endpoints)), [
    { index: 1, gateway: "10.0.1.1" },
    { index: 1, gateway: "fd00::1" },
  ]);
  const networks = [{ network: "zoo", gwPriority: 1 }, { network: "ark" }];
  const preferred = record(endpoints, networks);
  assert.deepEqual(defaultRoutes(preferred), [
    { index: 0, gateway: "10.0.0.1" },
    { index: 1, gateway: "fd00::1" },
  ]);
  assert.deepEqual(
    interfacesOf(preferred).map(({ name, gateways }) => [name, gateways]),
    [
      ["eth0", ["10.0.0.1"]],
      ["eth1", ["fd00::1"]],
      ["eth2", []],
    ],
  );
});
