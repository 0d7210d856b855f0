/** Guests that were taken over as a whole, kernel, agent and all, beside an honest one. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { writeCpio } from "../../agent/cpio.mjs";
import { PROTOCOL_VERSION } from "../../protocol/index.js";
import { Daemon } from "./harness/daemon.js";
import { cliOf } from "./harness/docker.js";
import { effort, random, SEED } from "./harness/effort.js";
import { environment, imageRef } from "./harness/environment.js";
import { peakOf } from "./harness/memory.js";
import { fault } from "./harness/figures.js";
import { eventually } from "./harness/wait.js";

const MiB = 1024 * 1024;
const IMAGE = imageRef("busybox");
const BUILD = path.resolve(import.meta.dirname, "../../build");

/** By its hostname a guest knows how to behave: see harness/hostile-init.c. */
const hostile = (behaviour: number) => [
  ...["run", "-d", "--name", `hostile-${behaviour}`, "-m", "1g"],
  ...["--hostname", `hostile-${behaviour}`],
];

/** Compiles the hostile init. @returns an initramfs that has it, and the real agent */
function makeInitramfs(directory: string): string {
  const init = path.join(directory, "init");
  execFileSync("musl-gcc", [
    ...["-static", "-O1", "-Wall", `-DPROTOCOL="${PROTOCOL_VERSION}"`],
    ...["-o", init],
    path.join(import.meta.dirname, "harness/hostile-init.c"),
  ]);
  const file = path.join(directory, "initramfs.cpio");
  const folders = ["dev", "proc", "sys", "run", "root"];
  writeFileSync(
    file,
    writeCpio([
      ...folders.map((name) => ({ name, mode: 0o040755 })),
      { name: "dev/console", mode: 0o020600, device: [5, 1] as const },
      { name: "init", mode: 0o100755, data: readFileSync(init) },
      {
        name: "agent",
        mode: 0o100755,
        data: readFileSync(path.join(BUILD, "agent")),
      },
    ]),
  );
  return file;
}

describe("a guest whose agent is hostile", { timeout: 600_000 }, () => {
  const directory = path.join(environment().directory, "hostile");
  const daemon = new Daemon(path.join(directory, "d"));
  const bridge = `hhg${process.pid}`;
  const { docker, ok } = cliOf(daemon, { timeout: 120_000 });

  before(async () => {
    mkdirSync(directory);
    await daemon.start([
      ...(environment().root ? ["--bridge", bridge] : []),
      ...["--initramfs", makeInitramfs(directory), "--templates", "off"],
      ...["--warm", "0"],
    ]);
    await ok(["pull", IMAGE]);
    await ok(["run", "-d", "--name", "honest", IMAGE, "sleep", "10000"]);
  });
  after(() => daemon.destroy());

  const cases: [what: string, reason: RegExp][] = [
    ["writes noise", /broke the protocol/],
    ["announces 4 GiB", /broke the protocol: .*4294967280/],
    ["answers what nobody asked", /broke the protocol: .*4711/],
    ["floods the host with events", /broke the protocol: .*flood/],
  ];
  for (const [behaviour, [what, reason]] of cases.entries()) {
    test(`and ${what} loses its machine, and the honest one notices nothing`, async (t) => {
      const name = `hostile-${behaviour}`;
      const pid = (
        await ok(["inspect", "-f", "{{.State.Pid}}", "honest"])
      ).trim();
      const peak = peakOf(daemon.pid);
      // Whether it is under way when the attack begins is the guest's choice.
      await docker([...hostile(behaviour), IMAGE, "true"]);
      const said = await eventually(
        async () => {
          const format = "{{.State.Running}} {{.State.Error}}";
          const state = await ok(["inspect", "-f", format, name]);
          assert.match(state, /^false ./);
          return state;
        },
        { timeout: 60_000 },
      );
      assert.match(said, reason);
      assert.equal(await ok(["exec", "honest", "echo", "well"]), "well");
      assert.equal(
        await ok(["inspect", "-f", "{{.State.Pid}}", "honest"]),
        pid,
      );
      const grown = peak();
      assert.ok(grown < 128 * MiB, `the daemon grew by ${grown} bytes`);
      await ok(["rm", name]);
      await eventually(() => assert.equal(daemon.machines().length, 1));
      fault(t, `guest ${what}: neighbours and daemon`, 1, 0);
    });
  }

  test("and mangles the messages of its shares reaches its own volume only", async () => {
    await ok(["volume", "create", "shared"]);
    const peak = peakOf(daemon.pid);
    await docker([...hostile(4), "-v", "shared:/data", IMAGE, "true"]);
    await eventually(
      () => assert.match(daemon.logTail(200), /"guest":"mangled"/),
      { timeout: 120_000 },
    );
    assert.equal(await ok(["exec", "honest", "echo", "well"]), "well");
    const grown = peak();
    assert.ok(grown < 128 * MiB, `the daemon grew by ${grown} bytes`);
    await ok(["rm", "-f", "hostile-4"]);
    await ok(["volume", "rm", "shared"]);
  });
});

/** Sizes of what follows the header, kinds of 9P2000.L that exist, and some that do not. */
function anyMessage(next: () => number): Buffer {
  const below = (limit: number) => Math.floor(next() * limit);
  const words = ["0", "..", "/", ".", "a", "../../etc", "\0", "x".repeat(300)];
  const parts: Buffer[] = [];
  for (let fields = below(6); fields >= 0; fields--) {
    const choice = below(4);
    if (choice === 0) {
      const text = Buffer.from(words[below(words.length)] ?? "");
      const length = Buffer.alloc(2);
      length.writeUInt16LE(below(20) === 0 ? 0xffff : text.length);
      parts.push(length, text);
    } else {
      const number = Buffer.alloc(choice === 1 ? 8 : 4);
      const value = below(10) === 0 ? below(0xffffffff) : below(4);
      number.writeUInt32LE(value >>> 0);
      parts.push(number);
    }
  }
  const body = Buffer.concat(parts);
  const head = Buffer.alloc(7);
  const size = below(200) === 0 ? below(0xffffffff) : body.length + 7;
  head.writeUInt32LE(size >>> 0);
  head[4] = below(10) === 0 ? below(256) : 6 + 2 * below(62);
  head.writeUInt16LE(below(0xffff), 5);
  return Buffer.concat([head, body]);
}

describe("a server of shared folders", { timeout: 300_000 }, () => {
  const connections = effort(30, 1000);
  test(`whose guest is hostile: ${connections} times anything at all, and nothing outside has changed`, async (t) => {
    t.diagnostic(`HULL_SEED=${SEED}`);
    const next = random();
    const root = mkdtempSync(path.join(tmpdir(), "hull-9p-"));
    t.after(() => rmSync(root, { recursive: true }));
    const inside = path.join(root, "volume");
    const outside = path.join(root, "outside");
    writeFileSync(outside, "untouched");
    const server = net.createServer();
    const socket = path.join(root, "socket");
    server.listen(socket);
    await once(server, "listening");
    t.after(() => server.close());
    for (let round = 0; round < connections; round++) {
      mkdirSync(inside);
      const scratch = path.join(root, "scratch");
      mkdirSync(scratch);
      const accepted = once(server, "connection") as Promise<[net.Socket]>;
      const child = spawn(
        path.join(BUILD, "hull-share"),
        [socket, scratch, "-", inside, ""],
        { stdio: ["ignore", "pipe", "inherit"] },
      );
      const ended = once(child, "exit");
      const [guest] = await accepted;
      guest.on("error", () => undefined);
      guest.resume();
      const [ready] = (await once(child.stdout, "data")) as [Buffer];
      assert.equal(ready.toString(), "ready\n");
      guest.write(message(100, "\x00\x00\x10\x00\x08\x009P2000.L"));
      guest.write(
        message(104, "\0\0\0\0\xff\xff\xff\xff\0\0\x01\x000\0\0\0\0"),
      );
      for (let count = 0; count < 300; count++) guest.write(anyMessage(next));
      guest.end();
      const [code, signal] = (await ended) as [number, string | null];
      assert.equal(signal, null, `round ${round}`);
      assert.equal(code, 0, `round ${round}`);
      rmSync(inside, { recursive: true });
      rmSync(scratch, { recursive: true });
    }
    assert.equal(readFileSync(outside, "utf8"), "untouched");
    assert.deepEqual(readdirSync(root).sort(), ["outside", "socket"]);
    fault(t, "hostile shared folders: anything outside", connections, 0);
  });
});

function message(type: number, body: string): Buffer {
  const bytes = Buffer.from(body, "latin1");
  const head = Buffer.alloc(7);
  head.writeUInt32LE(bytes.length + 7);
  head[4] = type;
  return Buffer.concat([head, bytes]);
}
