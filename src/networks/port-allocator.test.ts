import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { afterEach, test } from "node:test";
import { PortAllocator } from "./port-allocator.js";

const allocator = new PortAllocator();
afterEach(() => allocator.close());

const ANY = { first: 0, last: 0 };
const tcp = (first: number, last = first) => ({
  protocol: "tcp" as const,
  hostPorts: { first, last },
});

/** A port that was free a moment ago. */
async function someFreePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

test("a port is given once, whichever of the two has all addresses", async () => {
  const port = await someFreePort();
  const first = await allocator.allocate(tcp(port), ["127.0.0.1"]);
  await assert.rejects(allocator.allocate(tcp(port), ["0.0.0.0"]), {
    message: `Bind for 0.0.0.0:${port} failed: port is already allocated`,
  });
  const other = await allocator.allocate(tcp(port), ["127.0.0.2"]);
  await allocator.allocate(
    { protocol: "udp", hostPorts: { first: port, last: port } },
    ["0.0.0.0"],
  );
  await allocator.release(first);
  await allocator.release(other);
  await allocator.allocate(tcp(port), ["0.0.0.0"]);
});

test("a port another process has is refused, and a range goes on behind it", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    const { port } = server.address() as AddressInfo;
    await assert.rejects(allocator.allocate(tcp(port), ["127.0.0.1"]), {
      message: `failed to bind host port 127.0.0.1:${port}/tcp: address already in use`,
    });
    const next = await allocator.allocate(tcp(port, port + 20), ["127.0.0.1"]);
    assert.ok(next.hostPort > port && next.hostPort <= port + 20);
  } finally {
    server.close();
  }
});

test("a range that is used up says so", async () => {
  const port = await someFreePort();
  allocator.note({ protocol: "tcp", hostPort: port, hostIps: ["0.0.0.0"] });
  allocator.note({ protocol: "tcp", hostPort: port + 1, hostIps: ["0.0.0.0"] });
  await assert.rejects(allocator.allocate(tcp(port, port + 1), ["0.0.0.0"]), {
    message: "all ports are allocated",
  });
});

test("ports that the daemon chooses follow one another", async () => {
  const request = { protocol: "udp" as const, hostPorts: ANY };
  const first = await allocator.allocate(request, ["127.0.0.1"]);
  const second = await allocator.allocate(request, ["127.0.0.1"]);
  assert.ok(second.hostPort > first.hostPort);
});

test("an address the host does not have ends the search at once", async () => {
  await assert.rejects(
    allocator.allocate({ protocol: "tcp", hostPorts: ANY }, ["192.0.2.1"]),
    /cannot assign requested address/,
  );
});
