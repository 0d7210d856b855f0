import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { hostname, totalmem } from "node:os";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { Unavailable } from "../errors.js";
import { EventBus, type EventMessage } from "../events.js";
import type { Hypervisor, HypervisorInfo } from "../hypervisor/index.js";
import { eventRoutes } from "./events.js";
import { systemRoutes, type SystemSources } from "./system.js";
import { serve, type TestServer } from "./test-server.js";

const HYPERVISOR: HypervisorInfo = {
  driver: "qemu",
  version: "7.2.1",
  accelerator: "tcg",
  reason: "a trial boot with KVM did not reach the agent",
  kernel: "6.12.43",
  agent: "0.1.0",
  warnings: ["WARNING: TCG is not a security boundary"],
};

function sources(info: () => Promise<HypervisorInfo>): SystemSources {
  return {
    engine: {
      id: "fe47ef88-0967-481a-832f-d628cedd021a",
      version: "0.1.0",
      commit: "1234567",
      builtAt: "2026-01-02T03:04:05.000Z",
      dataRoot: "/var/lib/hull",
      labels: ["tier=test"],
      debug: false,
      insecureRegistries: ["registry.example:5000", "10.0.0.0/8"],
      registryMirrors: ["https://mirror.example/"],
      machine: { memoryBytes: 2 ** 29, vcpus: 1, diskBytes: 10 * 2 ** 30 },
    },
    events: new EventBus(),
    hypervisor: { info } as Hypervisor,
    containers: () => ({ running: 1, paused: 2, stopped: 3 }),
    images: () => 4,
  };
}

const serveSystem = (t: TestContext): Promise<TestServer> =>
  serve(t, systemRoutes(sources(() => Promise.resolve(HYPERVISOR))));

test("ping answers OK with the headers clients negotiate by", async (t) => {
  const server = await serveSystem(t);
  const get = await server.request("GET", "/_ping");
  assert.equal(get.text, "OK");
  const head = await server.request("HEAD", "/_ping");
  assert.equal(head.text, "");
  for (const { status, headers } of [get, head]) {
    assert.equal(status, 200);
    assert.equal(headers["api-version"], "1.51");
    assert.equal(headers["content-type"], "text/plain; charset=utf-8");
    assert.equal(
      headers["cache-control"],
      "no-cache, no-store, must-revalidate",
    );
    assert.equal(headers["pragma"], "no-cache");
  }
  assert.equal(head.headers["content-length"], "0");
});

test("info counts and names what there is", async (t) => {
  const answer = await (await serveSystem(t)).request("GET", "/v1.51/info");
  const info = answer.json() as Record<string, unknown>;
  assert.equal(info["Containers"], 6);
  assert.equal(info["ContainersRunning"], 1);
  assert.equal(info["Images"], 4);
  assert.equal(info["Name"], hostname());
  assert.equal(info["MemTotal"], totalmem());
  assert.deepEqual(info["Warnings"], [
    "WARNING: TCG is not a security boundary",
  ]);
  assert.deepEqual(info["DriverStatus"], [
    ["Hypervisor", "qemu 7.2.1"],
    ["Accelerator", `tcg (${HYPERVISOR.reason})`],
    ["Guest Kernel", "6.12.43"],
    ["Guest Agent", "0.1.0"],
    ["Default Machine", "512 MiB memory, 1 vCPU, 10240 MiB disk"],
  ]);
  assert.deepEqual(info["RegistryConfig"], {
    InsecureRegistryCIDRs: ["::1/128", "127.0.0.0/8", "10.0.0.0/8"],
    IndexConfigs: {
      "docker.io": {
        Name: "docker.io",
        Mirrors: ["https://mirror.example/"],
        Secure: true,
        Official: true,
      },
      "registry.example:5000": {
        Name: "registry.example:5000",
        Mirrors: [],
        Secure: false,
        Official: false,
      },
    },
    Mirrors: ["https://mirror.example/"],
  });
});

test("info and version are there when no machine can run, with the reason", async (t) => {
  const server = await serve(
    t,
    systemRoutes(
      sources(() => Promise.reject(new Unavailable("qemu is not installed"))),
    ),
  );
  const info = (await server.request("GET", "/info")).json();
  assert.deepEqual((info as { Warnings: string[] }).Warnings, [
    "WARNING: no container can be started: qemu is not installed",
  ]);
  assert.equal((await server.request("GET", "/version")).status, 200);
});

test("the docker CLI reads version and info", async (t) => {
  const server = await serveSystem(t);
  const docker = async (...args: string[]) => {
    const { stdout, stderr } = await promisify(execFile)("docker", args, {
      env: { ...process.env, DOCKER_HOST: `unix://${server.path}` },
    });
    return stdout + stderr;
  };
  try {
    await docker("--version");
  } catch {
    t.skip("the docker CLI is not installed");
    return;
  }
  const version = await docker("version");
  assert.match(version, /Server: hull\n/);
  assert.match(
    version,
    /Version:\s+0\.1\.0\n\s+API version:\s+1\.51 \(minimum version 1\.24\)/,
  );
  assert.match(
    version,
    / qemu:\n\s+Version:\s+7\.2\.1\n\s+Accelerator:\s+tcg\n/,
  );
  const info = await docker("info");
  assert.match(
    info,
    /Containers: 6\n\s+Running: 1\n\s+Paused: 2\n\s+Stopped: 3\n/,
  );
  assert.match(info, /Storage Driver: erofs\+overlay\n/);
  assert.match(info, /Default Runtime: hull\n/);
  assert.match(info, /WARNING: TCG is not a security boundary\n/);
});

function eventOf(bus: EventBus, id: string): EventMessage {
  return bus.publish({
    Type: "container",
    Action: "start",
    Actor: { ID: id, Attributes: {} },
  });
}

const idsOf = (text: string): string[] =>
  text
    .trim()
    .split("\r\n")
    .filter((line) => line !== "")
    .map((line) => (JSON.parse(line) as EventMessage).Actor.ID);

test("events between two past times are sent, and the stream ends", async (t) => {
  const bus = new EventBus();
  const server = await serve(t, eventRoutes(bus));
  eventOf(bus, "a");
  const until = (Date.now() + 1000) / 1000;
  const past = await server.request("GET", `/events?since=1&until=${until}`);
  assert.deepEqual(idsOf(past.text), ["a"]);
  const none = await server.request("GET", "/events?since=1&until=2");
  assert.equal(none.text, "");
});

test("events that happen meanwhile are sent until the time has come", async (t) => {
  const bus = new EventBus();
  const server = await serve(t, eventRoutes(bus));
  eventOf(bus, "before");
  const until = (Date.now() + 300) / 1000;
  const filters = encodeURIComponent('{"container":["during"]}');
  const answer = server.request(
    "GET",
    `/events?until=${until}&filters=${filters}`,
  );
  await sleep(100);
  eventOf(bus, "during");
  eventOf(bus, "other");
  assert.deepEqual(idsOf((await answer).text), ["during"]);
  assert.equal(bus.listeners, 0);
});

test("a client that goes away is forgotten", async (t) => {
  const bus = new EventBus();
  const socket = (await serve(t, eventRoutes(bus))).connect();
  socket.write("GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
  await sleep(50);
  assert.equal(bus.listeners, 1);
  socket.destroy();
  await sleep(50);
  assert.equal(bus.listeners, 0);
  eventOf(bus, "a");
});

test("a client that never reads is disconnected, and memory stays bounded", async (t) => {
  const bus = new EventBus();
  const socket = (await serve(t, eventRoutes(bus))).connect();
  socket.on("error", () => undefined);
  socket.pause();
  socket.write("GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
  await sleep(50);
  const filler = "x".repeat(100_000);
  for (let i = 0; i < 100; i++) {
    bus.publish({
      Type: "container",
      Action: "start",
      Actor: { ID: String(i), Attributes: { filler } },
    });
  }
  await sleep(50);
  assert.equal(bus.listeners, 0);
  socket.destroy();
});

test("since after until is refused", async (t) => {
  const server = await serve(t, eventRoutes(new EventBus()));
  const answer = await server.request("GET", "/events?since=3&until=2");
  assert.equal(answer.status, 400);
  assert.match(
    answer.text,
    /`since` time \(3\) cannot be after `until` time \(2\)/,
  );
});
