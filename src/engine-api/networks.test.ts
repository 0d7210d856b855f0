import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { pino } from "pino";
import { Connections } from "../containers/connections.js";
import { EventBus } from "../events.js";
import { Networks } from "../networks/service.js";
import { networkRoutes } from "./networks.js";
import { serve, type TestServer } from "./test-server.js";

interface Network {
  Name: string;
  Id: string;
  Driver: string;
  Containers: Record<string, { Name: string; IPv4Address: string }>;
}

async function start(
  t: TestContext,
): Promise<{ server: TestServer; networks: Networks }> {
  const directory = await mkdtemp(join(tmpdir(), "hull-networks-"));
  const networks = await Networks.open({
    directory,
    driver: "user",
    bridge: "hulltest0",
    mtu: 1500,
    dns: [],
    dnsSearch: [],
    dnsOptions: [],
    events: new EventBus(),
    log: pino({ level: "silent" }),
  });
  t.after(async () => {
    await networks.close();
    await rm(directory, { recursive: true });
  });
  const server = await serve(t, networkRoutes(networks, noContainers));
  return { server, networks };
}

/** These tests connect no containers. */
const noContainers = {
  get: (name: string) => assert.fail(`asked for the container ${name}`),
  connections: new Connections(undefined as never, pino({ level: "silent" })),
};

function filtered(filters: object): string {
  return `/networks?filters=${encodeURIComponent(JSON.stringify(filters))}`;
}

async function names(server: TestServer, url: string): Promise<string[]> {
  const answer = await server.request("GET", url);
  assert.equal(answer.status, 200, answer.text);
  return (answer.json() as Network[]).map((network) => network.Name);
}

test("the list has the networks that are there, not the host's", async (t) => {
  const { server } = await start(t);
  assert.deepEqual(await names(server, "/v1.51/networks"), ["bridge", "none"]);
});

test("the list is filtered as the Engine filters it", async (t) => {
  const { server, networks } = await start(t);
  const { id } = networks.get("none");
  for (const [filters, expected] of [
    [{ name: ["brid"] }, ["bridge"]],
    [{ driver: ["null"] }, ["none"]],
    [{ id: [id.slice(0, 12)] }, ["none"]],
    [{ type: ["builtin"] }, ["bridge", "none"]],
    [{ type: ["custom"] }, []],
    [{ scope: ["swarm"] }, []],
    [{ dangling: ["true"] }, []],
    [{ dangling: ["false"] }, ["bridge", "none"]],
    [{ label: ["a=b"] }, []],
    [{ name: { none: true } }, ["none"]],
  ] as const) {
    assert.deepEqual(
      await names(server, filtered(filters)),
      expected,
      JSON.stringify(filters),
    );
  }
});

test("a filter that is unknown or impossible is refused by name", async (t) => {
  const { server } = await start(t);
  for (const [filters, message] of [
    [{ nme: ["x"] }, /invalid filter 'nme'/],
    [{ type: ["x"] }, /invalid filter: 'type'='x'/],
    [{ dangling: ["maybe"] }, /invalid filter 'dangling/],
  ] as const) {
    const answer = await server.request("GET", filtered(filters));
    assert.equal(answer.status, 400);
    assert.match(answer.text, message);
  }
});

test("inspect shows the containers with their addresses", async (t) => {
  const { server, networks } = await start(t);
  const id = "a".repeat(64);
  await networks.attach(
    { id, name: "web", hostname: "web" },
    { network: "bridge" },
  );
  const answer = await server.request("GET", "/networks/bridge");
  const network = answer.json() as Network;
  assert.equal(network.Driver, "user");
  assert.equal(network.Containers[id]?.Name, "web");
  assert.equal(network.Containers[id]?.IPv4Address, "10.0.2.15/24");
  const byPrefix = await server.request(
    "GET",
    `/networks/${network.Id.slice(0, 12)}`,
  );
  assert.equal((byPrefix.json() as Network).Name, "bridge");
});

test("an unknown network is 404, a pre-defined one cannot be removed", async (t) => {
  const { server } = await start(t);
  const unknown = await server.request("GET", "/networks/nope");
  assert.equal(unknown.status, 404);
  assert.deepEqual(unknown.json(), { message: "network nope not found" });
  assert.equal((await server.request("DELETE", "/networks/nope")).status, 404);
  const refused = await server.request("DELETE", "/networks/bridge");
  assert.equal(refused.status, 403);
  assert.deepEqual(refused.json(), {
    message: "bridge is a pre-defined network and cannot be removed",
  });
});

test("in user mode there is nothing to prune, and no network can be made", async (t) => {
  const { server } = await start(t);
  const pruned = await server.request("POST", "/networks/prune");
  assert.deepEqual(pruned.json(), { NetworksDeleted: null });
  const created = await server.request(
    "POST",
    "/networks/create",
    '{"Name":"x"}',
  );
  assert.equal(created.status, 503);
  assert.match(created.text, /network driver is user mode/);
});
