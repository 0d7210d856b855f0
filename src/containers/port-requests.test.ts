import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidParameter, NotImplemented } from "../errors.js";
import { createRequestSchema } from "./create-request.js";
import { checkPorts, namedPorts, portRequests } from "./port-requests.js";
import type { ContainerRecord } from "./record.js";

function record(
  hostConfig: object,
  exposed: Record<string, object> = {},
): ContainerRecord {
  return {
    hostConfig,
    config: { ExposedPorts: exposed },
  } as unknown as ContainerRecord;
}

test("bindings become requests, a missing host port is the daemon's choice", () => {
  const requests = portRequests(
    record({
      PortBindings: {
        "80/tcp": [{ HostPort: "8080" }, { HostIp: "127.0.0.1" }],
        "53/udp": [{ HostPort: "5000-5010" }],
        "90/tcp": [],
      },
    }),
  );
  assert.deepEqual(requests, [
    {
      port: 80,
      protocol: "tcp",
      hostIp: "",
      hostPorts: { first: 8080, last: 8080 },
    },
    {
      port: 80,
      protocol: "tcp",
      hostIp: "127.0.0.1",
      hostPorts: { first: 0, last: 0 },
    },
    {
      port: 53,
      protocol: "udp",
      hostIp: "",
      hostPorts: { first: 5000, last: 5010 },
    },
  ]);
});

test("-P adds what is exposed and not bound, ranges port by port", () => {
  const requests = portRequests(
    record(
      {
        PublishAllPorts: true,
        PortBindings: { "80/tcp": [{ HostPort: "1" }] },
      },
      { "80/tcp": {}, "90-91/udp": {} },
    ),
  );
  assert.deepEqual(
    requests.map(({ port, protocol, hostPorts }) => [
      port,
      protocol,
      hostPorts.first,
    ]),
    [
      [80, "tcp", 1],
      [90, "udp", 0],
      [91, "udp", 0],
    ],
  );
});

test("ports are named once and in order", () => {
  assert.deepEqual(
    namedPorts(
      record(
        { PortBindings: { "80/tcp": [], "443": [] } },
        { "80": {}, "9/udp": {} },
      ),
    ),
    ["9/udp", "80/tcp", "443/tcp"],
  );
});

test("impossible ports are refused in Docker's words", () => {
  const check = (body: object) => () =>
    checkPorts(createRequestSchema.parse(body));
  for (const name of ["", "0", "65536", "80-70", "http", "80/tcp/udp", "-1"]) {
    assert.throws(
      check({ ExposedPorts: { [name]: {} } }),
      InvalidParameter,
      name,
    );
  }
  assert.throws(check({ ExposedPorts: { "80/sctp": {} } }), NotImplemented);
  assert.throws(
    check({ HostConfig: { PortBindings: { "80-81/tcp": [{}] } } }),
    InvalidParameter,
  );
  check({
    ExposedPorts: { "80/TCP": {} },
    HostConfig: { PortBindings: { "80/tcp": null } },
  })();
});
