import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidParameter, NotImplemented } from "../errors.js";
import { createRequestSchema } from "./create-request.js";
import { networkRequests } from "./network-requests.js";

function requests(body: object) {
  return networkRequests(createRequestSchema.parse(body));
}

test("the network of the mode comes first, with its settings", () => {
  assert.deepEqual(requests({}), [{ network: "default" }]);
  assert.deepEqual(
    requests({
      HostConfig: { NetworkMode: "front" },
      NetworkingConfig: {
        EndpointsConfig: {
          back: { GwPriority: 5 },
          front: {
            IPAMConfig: { IPv4Address: "10.0.0.9" },
            Aliases: ["www"],
            MacAddress: "02:42:00:00:00:01",
            Links: ["db:database"],
          },
        },
      },
    }),
    [
      {
        network: "front",
        ipv4Address: "10.0.0.9",
        aliases: ["www"],
        macAddress: "02:42:00:00:00:01",
        links: { database: "db" },
      },
      { network: "back", gwPriority: 5 },
    ],
  );
});

test("settings for `bridge` are those of the mode `default`, and an old MAC address is its", () => {
  assert.deepEqual(
    requests({
      MacAddress: "02:42:00:00:00:02",
      NetworkingConfig: { EndpointsConfig: { bridge: {} } },
    }),
    [{ network: "default", macAddress: "02:42:00:00:00:02" }],
  );
});

test("no network has no company, and a machine has so many NICs", () => {
  const endpoints = (...names: string[]) => ({
    EndpointsConfig: Object.fromEntries(names.map((name) => [name, {}])),
  });
  assert.deepEqual(requests({ NetworkDisabled: true }), [{ network: "none" }]);
  assert.throws(
    () =>
      requests({
        HostConfig: { NetworkMode: "none" },
        NetworkingConfig: endpoints("front"),
      }),
    InvalidParameter,
  );
  assert.throws(
    () => requests({ NetworkingConfig: endpoints("a", "b", "c", "d", "e") }),
    /a container can be on \d networks at most, not on 6/,
  );
});

test("links are names on networks that have names", () => {
  const links = (NetworkMode: string, ...Links: string[]) =>
    requests({ HostConfig: { NetworkMode, Links } })[0]?.links;
  assert.deepEqual(links("front", "db", "/cache:/web/store"), {
    db: "db",
    store: "cache",
  });
  assert.throws(() => links("bridge", "db"), NotImplemented);
  assert.throws(() => links("front", ":x"), InvalidParameter);
});
