import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, test } from "node:test";
import {
  Channel,
  FrameType,
  MAX_PAYLOAD,
  streamOf,
} from "../../../protocol/index.js";
import { TestContainer, defaultSetup } from "./container.js";
import { encodeFrame } from "./machine.js";

const boxes: TestContainer[] = [];

async function boot(
  options: Parameters<typeof TestContainer.boot>[0] = {},
): Promise<TestContainer> {
  const box = await TestContainer.boot(options);
  boxes.push(box);
  return box;
}

afterEach(async () => {
  for (const box of boxes.splice(0)) await box.stop();
});

test("the agent is ready in time, small, and idle without using the CPU", async () => {
  const box = await boot({ countInstructions: true });
  const hello = await box.machine.request("hello", {});
  // Instructions do not depend on the host's load; a TCG host does some 200 to 500 million a second.
  assert.ok(
    (hello.agent?.readyMs ?? Infinity) < 12,
    `${hello.agent?.readyMs} million instructions`,
  );
  assert.ok((hello.agent?.residentBytes ?? Infinity) < 4e6);
});

test("a saved machine has what every container needs, and each that goes on as it is one of its own", async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hull-agent-saved-"));
  const saved = path.join(folder, "machine");
  try {
    const original = await boot();
    await original.machine.request("hello", {});
    await original.machine.save(saved);
    await original.machine.stop();
    const seen: string[] = [];
    for (let i = 0; i < 2; i++) {
      const clone = await boot({ saved });
      const mac = `02:42:ac:11:00:1${i}`;
      const [nic] = defaultSetup().network.interfaces;
      assert.ok(nic);
      await clone.setup({
        hostname: `clone${i}`,
        network: { interfaces: [{ ...nic, mac }] },
        sysctls: { "kernel.shmmni": "100" },
      });
      await clone.startInit();
      const { stdout } = await clone.shell(
        "hostname; cat /sys/class/net/*/address /proc/sys/kernel/shmmni; grep -c /dev/vda /proc/self/mounts; head -c 16 /dev/vda | wc -c; cat /proc/sys/kernel/random/boot_id; head -c 8 /dev/urandom | od -An -tx1",
      );
      const [hostname, ...rest] = stdout.trim().split("\n");
      assert.equal(hostname, `clone${i}`);
      assert.deepEqual(rest.slice(0, 5), [
        ...[mac, "00:00:00:00:00:00", "100", "0", "0"],
      ]);
      seen.push(...rest.slice(5));
      await clone.machine.stop();
    }
    assert.equal(seen.length, 4);
    assert.equal(new Set(seen).size, 4, seen.join(" "));
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test("a host that dies and comes back loses no byte and gets none twice", async () => {
  const box = await boot();
  await box.setup();
  const lines = 60_000;
  const { stdout, stderr } = await box.spawn(
    1,
    ["sh", "-c", `seq 1 ${lines}; cat | wc -c; exit 5`],
    { stdin: true },
  );
  const { machine } = box;
  const stdin = streamOf(1, Channel.Stdin);
  const input = Buffer.alloc(50_000, "i");
  const half = encodeFrame(
    FrameType.Data,
    stdin,
    10_000,
    input.subarray(0, 20_000),
  );
  const stumps = [
    Buffer.alloc(0),
    half.subarray(0, 1),
    half.subarray(0, 5),
    half.subarray(0, 20),
    half.subarray(0, 10_000),
    half.subarray(0, half.length - 1),
    encodeFrame(
      FrameType.Request,
      0,
      0,
      Buffer.alloc(MAX_PAYLOAD, 32),
    ).subarray(0, 3),
  ];
  machine.frame(FrameType.Data, stdin, 0, input.subarray(0, 10_000));
  for (const stump of stumps) {
    const seen = stdout.offset;
    await machine.until(
      () => stdout.offset > seen || stdout.offset > lines * 5 || undefined,
    );
    await machine.disconnect(stump);
    const hello = await machine.reconnect();
    assert.equal(hello.processes[0]?.stdinReceived, 10_000);
    assert.equal(hello.ready, true);
  }
  machine.frame(FrameType.Data, stdin, 10_000, input.subarray(10_000));
  machine.frame(FrameType.Eof, stdin, input.length);
  const result = await box.finish(1, stdout, stderr);
  const expected = Array.from({ length: lines }, (_, i) => `${i + 1}\n`).join(
    "",
  );
  assert.equal(result.stdout, `${expected}50000\n`);
  assert.equal(result.exit.code, 5);
});

test("what happens while no host is there is told to the next one", async () => {
  const box = await boot();
  await box.setup();
  const { stdout, stderr } = await box.spawn(1, [
    "sh",
    "-c",
    "sleep 1; echo late; echo error >&2; exit 9",
  ]);
  const before = Date.now();
  await box.machine.disconnect();
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const hello = await box.machine.reconnect();
  const exit = hello.processes[0]?.exit;
  assert.equal(exit?.code, 9);
  assert.ok(
    exit && Math.abs(exit.at - before - 1000) < 1500,
    "the time is that of the end",
  );
  const result = await box.finish(1, stdout, stderr);
  assert.deepEqual([result.stdout, result.stderr], ["late\n", "error\n"]);
  await box.machine.request("release", { process: 1 });
});

test("a frame with an impossible length is survived: the next connection works", async () => {
  const box = await boot();
  await box.setup();
  await box.startInit();
  box.machine.raw(Buffer.alloc(5000, 0xff));
  await box.machine.until(
    () =>
      box.machine.events.some(
        (event) => event.event === "log" && event.message.includes("too long"),
      ) || undefined,
  );
  await box.machine.disconnect();
  const hello = await box.machine.reconnect();
  assert.equal(hello.processes.length, 1);
  assert.equal((await box.run(["echo", "hi"])).stdout, "hi\n");
});

test("a container's changes are there when it starts again, and its disk is clean", async () => {
  const first = await boot();
  await first.setup();
  await first.startInit();
  await first.shell(
    "echo kept > /kept; rm -r /home; mkdir /home; echo new > /etc/passwd; chmod 700 /etc",
  );
  await first.machine.request("shutdown", {});
  await first.machine.stop();
  execFileSync("e2fsck", ["-fn", first.disk], { stdio: "pipe" });
  const second = await boot({ disk: first.disk });
  await second.setup({
    rootfs: { image: 0, writable: 1, readonly: true },
    shmSize: 1 << 20,
  });
  await second.startInit({ cwd: "/made/for/it" });
  const { stdout, stderr } = await second.shell(
    "cat /kept /etc/passwd; ls /home | wc -l; stat -c %a /etc /; ls -d /made/for/it; df -k /dev/shm | tail -1 | awk '{print $2}'; touch /x",
  );
  assert.equal(stdout, "kept\nnew\n0\n700\n755\n/made/for/it\n1024\n");
  assert.match(stderr, /touch: \/x: Read-only file system/);
});

test("a privileged container sees the machine's devices and may mount", async () => {
  const box = await boot();
  await box.setup({ privileged: true, maskedPaths: [], readonlyPaths: [] });
  await box.startInit();
  const { stdout, stderr } = await box.shell(
    "ls /dev | grep -c -e vda -e vport; mount -t tmpfs none /tmp && echo mounted; mkdir /sys/fs/cgroup/sub && echo cgroup; echo 10 > /proc/sys/vm/swappiness && echo sysctl",
    { capabilities: ["SYS_ADMIN", "DAC_OVERRIDE", "SYS_RESOURCE"] },
  );
  assert.equal(stdout, "1\nmounted\ncgroup\nsysctl\n", stderr);
});

test("the memory of a privileged container is watched: it has another cgroup", async () => {
  const box = await boot();
  await box.setup({
    privileged: true,
    maskedPaths: [],
    readonlyPaths: [],
    limits: { memoryBytes: 64 << 20, memorySwapBytes: 64 << 20 },
  });
  // An exit would tell it, too: this process stays.
  await box.spawn(1, ["sh", "-c", "tail -c 200m /dev/zero; sleep 1000"]);
  await box.machine.until(() =>
    box.machine.events.find(({ event }) => event === "oom"),
  );
});

test("signals with `all` reach every process, and orphans of an exec are reaped", async () => {
  const box = await boot();
  await box.setup();
  await box.spawn(1, ["sh", "-c", "sleep 1000 & sleep 1000 & wait"]);
  const number = box.number();
  await box.spawn(number, [
    "sh",
    "-c",
    "(sleep 0.2 &) ; (sleep 1000 &); exec sleep 1000",
  ]);
  const count = async () =>
    (await box.machine.request("processes", {})).processes.filter(
      ({ command }) => command.startsWith("sleep"),
    ).length;
  for (let tries = 0; tries < 50 && (await count()) !== 4; tries++)
    await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(await count(), 4);
  await box.machine.request("signal", { process: 1, signal: 9, all: true });
  assert.equal((await box.machine.exit(1)).signal, 9);
  assert.equal((await box.machine.exit(number)).signal, 9);
  assert.equal(await count(), 0);
});
