/** Many clients, and clients that do not behave: the others are served, and nothing piles up. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import net from "node:net";
import { after, before, describe, test } from "node:test";
import { api } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import {
  docker,
  dockerOk,
  removeContainers,
  uniqueName,
} from "./harness/docker.js";
import { effort } from "./harness/effort.js";
import { busybox } from "./harness/environment.js";
import { fault, figure, mebibytes } from "./harness/figures.js";
import { residentMemory } from "./harness/memory.js";
import { eventually, sleep } from "./harness/wait.js";

const MiB = 1024 * 1024;
const daemon = Daemon.shared();

/** What the daemon holds: open files, resident memory in bytes, processes of machines. */
function held() {
  return {
    files: readdirSync(`/proc/${daemon.pid}/fd`).length,
    memory: residentMemory(daemon.pid),
    machines: daemon.machines().length,
  };
}

function connect(): Promise<net.Socket> {
  return eventually(async () => {
    const socket = net.connect(daemon.socket);
    // Rejects when more wait to be accepted than the kernel keeps.
    await once(socket, "connect");
    socket.on("error", () => undefined);
    return socket;
  });
}

/** @returns ms that the daemon took to answer */
async function served(): Promise<number> {
  const begin = performance.now();
  assert.equal((await api("GET", "/containers/json?all=1")).status, 200);
  return performance.now() - begin;
}

describe("a daemon in a crowd", () => {
  const writer = uniqueName("crowd");
  const open: net.Socket[] = [];

  before(async () => {
    await dockerOk(["run", "-d", "--name", writer, busybox(), "yes"]);
  });
  after(async () => {
    for (const socket of open) socket.destroy();
    await removeContainers(writer);
  });

  const idle = effort(1000, 5000);
  test(`serves beside ${idle} idle connections and as many half requests`, async (t) => {
    const before = held();
    for (let at = 0; at < idle; at++) {
      const socket = await connect();
      if (at % 2 === 0) socket.write("GET /containers/json HTTP/1.1\r\nHos");
      open.push(socket);
    }
    assert.ok((await served()) < 5000);
    const grown = held().memory - before.memory;
    figure(t, `${idle} idle connections: memory`, mebibytes(grown));
    assert.ok(grown < 64 * MiB + idle * 40_000, `${grown} bytes more`);
    for (const socket of open.splice(0)) socket.destroy();
    await eventually(() => assert.ok(held().files < before.files + 20));
  });

  test("keeps its memory when clients attach and never read", async (t) => {
    const { Id } = (await api("GET", `/containers/${writer}/json`)).json as {
      Id: string;
    };
    const before = held().memory;
    for (const path of ["attach?stream=1&stdout=1", "logs?follow=1&stdout=1"]) {
      for (let at = 0; at < 5; at++) {
        const socket = await connect();
        socket.pause();
        const method = path.startsWith("attach") ? "POST" : "GET";
        socket.write(
          `${method} /containers/${Id}/${path} HTTP/1.1\r\nHost: d\r\n\r\n`,
        );
        open.push(socket);
      }
    }
    await sleep(effort(2000, 20_000));
    assert.ok((await served()) < 5000);
    const grown = held().memory - before;
    figure(t, "clients that never read: memory", mebibytes(grown));
    assert.ok(grown < 150 * MiB, `${grown} bytes more`);
    for (const socket of open.splice(0)) socket.destroy();
    // Without its followers it goes on writing.
    await sleep(200);
    assert.equal(await dockerOk(["exec", writer, "echo", "on"]), "on");
  });

  test("lets go of clients that wait for a container, and go away", async () => {
    const before = held().files;
    // As `docker run -d` does.
    const waits = `POST /containers/${writer}/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n`;
    for (let at = 0; at < 20; at++) {
      const socket = await connect();
      socket.write(waits);
      await once(socket, "data");
      socket.destroy();
    }
    await eventually(() => assert.ok(held().files < before + 10));
  });

  test("leaks nothing over many containers that are made and removed", async (t) => {
    await docker(["kill", writer]);
    await removeContainers(writer);
    const cycle = async (): Promise<void> => {
      const made = await api("POST", "/containers/create", {
        Image: busybox(),
        Cmd: ["true"],
      });
      assert.equal(made.status, 201, made.text);
      const { Id } = made.json as { Id: string };
      assert.equal((await api("DELETE", `/containers/${Id}`)).status, 204);
    };
    await cycle();
    const before = held();
    const cycles = effort(50, 1000);
    for (let at = 0; at < cycles; at++) await cycle();
    const now = held();
    const leaked = Math.max(0, now.machines - before.machines);
    fault(t, "containers made and removed: machines", cycles, leaked);
    figure(
      t,
      `${cycles} containers made and removed: memory`,
      mebibytes(now.memory - before.memory),
    );
    assert.ok(now.files <= before.files + 5, `${now.files} open files`);
    assert.ok(now.memory < before.memory + 100 * MiB, `${now.memory} bytes`);
    assert.equal(now.machines, before.machines);
  });
});
