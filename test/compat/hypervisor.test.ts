/** The hypervisor driver with real machines: our kernel, our agent, no daemon. */
import { PRODUCTS } from "../../src/daemon/installation.js";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import pino from "pino";
import { Channel, type Setup, type Spawn } from "../../protocol/index.js";
import { InvalidParameter, Unavailable } from "../../src/errors.js";
import {
  QemuHypervisor,
  type Disk,
  type Machine,
  type OutputSink,
} from "../../src/hypervisor/index.js";

const BUILD = path.resolve(import.meta.dirname, "../../build");
const MiB = 1024 * 1024;

/** Keeps what it got and acknowledges it at once. */
class Collector implements OutputSink {
  readonly chunks: Buffer[] = [];
  readonly ended: Promise<void>;
  #ended!: () => void;

  /** @param end offset up to which the stream was received before */
  constructor(public end = 0) {
    this.ended = new Promise((resolve) => (this.#ended = resolve));
  }
  data(chunk: Buffer, end: number, ack: (offset: number) => void): void {
    this.chunks.push(chunk);
    this.end = end;
    ack(end);
  }
  eof(): void {
    this.#ended();
  }
  get text(): string {
    return Buffer.concat(this.chunks).toString();
  }
}

function setup(): Setup {
  return {
    time: Date.now(),
    entropy: randomBytes(64).toString("base64"),
    hostname: "box",
    domainname: "",
    machineId: "",
    network: { interfaces: [] },
    rootfs: { image: 0, writable: 1, readonly: false },
    mounts: [],
    files: [],
    limits: {},
    sysctls: {},
    shmSize: 64 * MiB,
    privileged: false,
    maskedPaths: [],
    readonlyPaths: [],
  };
}

function command(process: number, ...args: string[]): Spawn {
  return {
    process,
    args,
    env: ["PATH=/bin"],
    cwd: "/",
    user: "",
    groups: [],
    stdin: false,
    capabilities: [],
    noNewPrivileges: false,
    rlimits: [],
    oomScoreAdj: 0,
  };
}

const SIZE = { memoryBytes: 256 * MiB, vcpus: 1 };

describe("hypervisor", { timeout: 180_000 }, () => {
  let root: string;
  let image: Disk;
  let hypervisor: QemuHypervisor;
  const machines: Machine[] = [];
  let count = 0;

  const options = () => ({
    kernel: path.join(BUILD, "vmlinux"),
    initramfs: path.join(BUILD, "initramfs.cpio"),
    accelerator: "auto" as const,
    stateDirectory: root,
    runDirectory: path.join(root, "run"),
    machineRoot: path.join(root, "m"),
    jail: {
      programs: PRODUCTS.jail,
      unconfined: false,
      firstUid: 0x70000000,
      cgroupParent: "/hull",
    },
    log: pino({ enabled: false }),
  });

  before(() => {
    root = mkdtempSync(path.join(tmpdir(), "hull-hv-"));
    image = layeredImage(root);
    hypervisor = new QemuHypervisor(options());
  });
  after(async () => {
    await Promise.all(machines.map((machine) => machine.kill()));
    rmSync(root, { recursive: true });
  });

  function spec(disks: Disk[] = []) {
    const id = `test${count++}`;
    const directory = path.join(root, id);
    mkdirSync(directory);
    return { id, directory, disks, forwards: [] };
  }

  async function start(
    given = spec(),
    of = hypervisor,
    size = SIZE,
  ): Promise<Machine> {
    const blank = await of.prepare(size);
    const machine = await blank.start(given);
    machines.push(machine);
    return machine;
  }

  /** A machine with a root, and its container's process running. */
  async function container(...args: string[]) {
    const writable = path.join(root, `writable${count}`);
    execFileSync("truncate", ["-s", "256M", writable]);
    execFileSync("mke2fs", ["-q", "-t", "ext4", writable]);
    const disk = {
      parts: [{ path: writable, bytes: 256 * MiB }],
      readonly: false,
    };
    const machine = await start(spec([image, disk]));
    const { agent } = machine;
    const stdout = new Collector();
    agent.output(1, Channel.Stdout, stdout);
    agent.output(1, Channel.Stderr, new Collector());
    const exit = new Promise<number>((resolve) =>
      agent.onEvent((event) => {
        if (event.event === "exit" && event.process === 1) {
          resolve(event.exit.code);
        }
      }),
    );
    await agent.hello;
    await Promise.all([
      agent.request("setup", setup()),
      agent.request("spawn", { ...command(1, ...args), stdin: true }),
    ]);
    return { machine, agent, stdout, exit };
  }

  test("a machine boots, runs a command from a layered image, and ends", async () => {
    const { machine, agent, stdout, exit } = await container(
      "sh",
      "-c",
      "cat /lower /upper; cat /sys/devices/system/clocksource/clocksource0/current_clocksource",
    );
    const code = await exit;
    await stdout.ended;
    assert.match(
      stdout.text,
      /^from the first layer\nfrom the second layer\n(tsc|tsc-early|kvm-clock)\n$/,
    );
    assert.equal(code, 0);
    await agent.request("release", { process: 1 });
    await agent.request("shutdown", {});
    await machine.kill();
    assert.deepEqual(await machine.exited, {
      reason: "powered off",
      expected: true,
    });
    assert.deepEqual(
      machine.spans.map(({ name }) => name),
      ["process", "qemu", "kernel", "agent", "handover"],
    );
  });

  test("a guest is neither set up nor woken without randomness of the host's", async () => {
    const few = { entropy: Buffer.alloc(63, 1).toString("base64") };
    const machine = await start();
    await assert.rejects(
      machine.agent.request("setup", { ...setup(), ...few }),
      /at least 64 bytes/,
    );
    await machine.kill();
    const { agent, machine: other } = await container("cat");
    const wake = { time: Date.now(), ...few };
    await assert.rejects(agent.request("wake", wake), /at least 64 bytes/);
    await other.kill();
  });

  test("stdin goes through a process and comes back", async () => {
    const { agent, stdout, exit } = await container("cat");
    const input = agent.input(1);
    const data = randomBytes(1024 * 1024);
    await input.write(data);
    input.end();
    assert.equal(await exit, 0);
    await stdout.ended;
    assert(Buffer.concat(stdout.chunks).equals(data));
  });

  test("a machine is found again in mid-stream, and no byte is lost or doubled", async () => {
    const lines = 400_000;
    const { machine, agent, stdout } = await container("seq", String(lines));
    let current = machine;
    let seen = stdout;
    let text = "";
    const cuts: number[] = [];
    for (let round = 0; round < 5; round += 1) {
      for (const before = seen.end; seen.end === before;) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      const { record } = current;
      await current.detach();
      const end = seen.end;
      cuts.push(end);
      text += seen.text;
      await assert.rejects(agent.request("hello", {}), Unavailable);
      const again = await hypervisor.reattach(
        JSON.parse(JSON.stringify(record)) as Machine["record"],
      );
      assert(again);
      machines.push(again);
      const hello = await again.agent.hello;
      assert.equal(hello.processes[0]?.process, 1);
      seen = new Collector(end);
      again.agent.output(1, Channel.Stdout, seen, end);
      current = again;
    }
    await seen.ended;
    text += seen.text;
    const expected = Array.from({ length: lines }, (_, i) => `${i + 1}\n`);
    assert.equal(text, expected.join(""));
    assert(cuts.every((cut) => cut > 0 && cut < text.length));
    await current.kill();
    assert.equal((await current.exited).expected, true);
    assert.equal(await hypervisor.reattach(current.record), undefined);
  });

  test("a paused machine answers when it goes on", async () => {
    const machine = await start();
    await machine.agent.hello;
    await machine.pause();
    let answered = false;
    const hello = machine.agent.request("hello", {}).then(() => {
      answered = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(answered, false);
    await machine.resume();
    await hello;
  });

  test("a record of another machine or process is not taken for a running one", async () => {
    const { record } = await start();
    const strange = { ...record, startTime: "1" };
    assert.equal(await hypervisor.reattach(strange), undefined);
    const renamed = { ...record, name: "other" };
    assert.equal(await hypervisor.reattach(renamed), undefined);
    await assert.rejects(
      hypervisor.reattach({ driver: "qemu" }),
      /record of a virtual machine is damaged/,
    );
  });

  test("a kernel panic is the reason of the end, in the kernel's words", async () => {
    const empty = path.join(root, "empty.cpio");
    writeFileSync(empty, Buffer.alloc(512));
    const broken = new QemuHypervisor({
      ...options(),
      accelerator: "tcg",
      initramfs: empty,
    });
    await assert.rejects(
      start(spec(), broken),
      (error: Error) =>
        error instanceof Unavailable &&
        /guest panicked: .+/.test(error.message),
    );
  });

  test("a machine that panicked while nobody was connected says so afterwards", async () => {
    const { machine } = await container(
      "sh",
      "-c",
      "sleep 1; echo 2 > /proc/sys/vm/panic_on_oom; busybox tail /dev/zero",
    );
    await machine.detach();
    const serial = String(machine.record["pid"]);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    // Its CPU stands still when the guest has ended.
    for (let before = -1, now = 0; before !== now;) {
      before = now;
      await new Promise((resolve) => setTimeout(resolve, 500));
      now = cpuTicks(serial);
    }
    const again = await hypervisor.reattach(machine.record);
    assert(again);
    assert.match((await again.exited).reason, /^guest panicked: .+/);
  });

  test("a machine that is killed says so", async () => {
    const machine = await start();
    process.kill(Number(machine.record["pid"]), "SIGKILL");
    assert.deepEqual(await machine.exited, {
      reason: "QEMU was killed by SIGKILL",
      expected: false,
    });
    await assert.rejects(machine.agent.request("hello", {}), Unavailable);
    await machine.kill();
  });

  test("what cannot be started fails at once, with the cause", async () => {
    const started = performance.now();
    await assert.rejects(
      hypervisor.prepare({ ...SIZE, memoryBytes: 6 * MiB }),
      InvalidParameter,
    );
    await assert.rejects(
      hypervisor.prepare({ ...SIZE, memoryBytes: 1e15 }),
      (error: Error) =>
        error instanceof Unavailable &&
        /cannot allocate memory/.test(error.message),
    );
    const gone = { path: path.join(root, "gone"), bytes: 512 };
    await assert.rejects(
      start(spec([{ parts: [gone], readonly: true }])),
      (error: Error) =>
        error instanceof InvalidParameter && /ENOENT/.test(error.message),
    );
    const noTap = new QemuHypervisor({
      ...options(),
      taps: {
        createTap: () => Promise.resolve("bad/name"),
        discardTap: () => undefined,
      },
    });
    await assert.rejects(
      start(spec(), noTap),
      (error: Error) =>
        error instanceof Unavailable && /tap|TUN/.test(error.message),
    );
    const noKernel = new QemuHypervisor({
      ...options(),
      accelerator: "tcg",
      kernel: image.parts[0]?.path ?? "",
    });
    await assert.rejects(
      start(spec(), noKernel),
      (error: Error) =>
        error instanceof Unavailable && /kernel|ELF|PVH/i.test(error.message),
    );
    assert(performance.now() - started < 5000);
  });

  test("two machines do not share a writable disk", async () => {
    const disk = path.join(root, "shared.img");
    execFileSync("truncate", ["-s", "1M", disk]);
    const writable = { parts: [{ path: disk, bytes: MiB }], readonly: false };
    await start(spec([image, writable]));
    await assert.rejects(
      start(spec([image, writable])),
      (error: Error) =>
        error instanceof Unavailable && /lock/.test(error.message),
    );
  });
});

/** CPU time a process has used. */
function cpuTicks(pid: string): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(" ");
  return Number(fields[13]) + Number(fields[14]);
}

/** Two layers and their merged metadata, as the image store lays them out. */
function layeredImage(directory: string): Disk {
  const mkfs = path.join(BUILD, "tools/mkfs.erofs");
  const make = (name: string, fill: (folder: string) => void) => {
    const folder = path.join(directory, `${name}.d`);
    const tar = path.join(directory, `${name}.tar`);
    const file = path.join(directory, `${name}.erofs`);
    mkdirSync(folder);
    fill(folder);
    execFileSync("tar", [
      "--owner=0",
      "--group=0",
      "-cf",
      tar,
      "-C",
      folder,
      ".",
    ]);
    execFileSync(mkfs, [
      "--tar=f",
      "--aufs",
      "--quiet",
      "-Enoinline_data",
      file,
      tar,
    ]);
    return file;
  };
  const first = make("first", (folder) => {
    mkdirSync(path.join(folder, "bin"));
    const busybox = path.join(folder, "bin/busybox");
    copyFileSync("/bin/busybox", busybox);
    chmodSync(busybox, 0o755);
    for (const name of ["sh", "cat", "seq", "sleep"]) {
      symlinkSync("busybox", path.join(folder, "bin", name));
    }
    writeFileSync(path.join(folder, "lower"), "from the first layer\n");
    writeFileSync(path.join(folder, "upper"), "hidden\n");
  });
  const second = make("second", (folder) => {
    writeFileSync(path.join(folder, "upper"), "from the second layer\n");
  });
  const merged = path.join(directory, "merged.erofs");
  execFileSync(mkfs, [
    "--aufs",
    "--ovlfs-strip=1",
    "--quiet",
    merged,
    first,
    second,
  ]);
  return {
    parts: [merged, first, second].map((file) => ({
      path: file,
      bytes: statSync(file).size,
    })),
    readonly: true,
  };
}
