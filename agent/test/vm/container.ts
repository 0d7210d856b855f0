/** A machine with a small container in it, for the agent's tests. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { ProcessExit, Setup, Spawn } from "../../../protocol/index.js";
import { Channel, TestMachine, type Received } from "./machine.js";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const kernel = process.env.HULL_TEST_KERNEL ?? path.join(root, "build/vmlinux");
const mkfsErofs =
  process.env.HULL_TEST_MKFS_EROFS ?? path.join(root, "build/tools/mkfs.erofs");
const initramfs = path.join(root, "build/initramfs.cpio");

/** What a process did, when it has ended and all its output has come. */
export interface Result {
  exit: ProcessExit;
  stdout: string;
  stderr: string;
}

export type SpawnOptions = Partial<Spawn> & { input?: string | Buffer };

export class TestContainer {
  private next = 2;

  private constructor(
    readonly machine: TestMachine,
    private readonly directory: string,
  ) {}

  /**
   * Boots a machine; `disk` is the writable disk of an earlier one, which it takes. With `rehearsal` other disks
   * than the container's are in the slots, until `giveDisks`.
   */
  static async boot(
    options: {
      disk?: string;
      nics?: number;
      countInstructions?: boolean;
      rehearsal?: boolean;
      saved?: string;
    } = {},
  ): Promise<TestContainer> {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "hull-agent-"));
    const disk = path.join(directory, "disk.ext4");
    if (options.disk) fs.renameSync(options.disk, disk);
    else makeDisk(disk);
    const machine = new TestMachine({
      directory,
      kernel,
      initramfs,
      disks: options.rehearsal
        ? makeRehearsalDisks(directory)
        : disksOf(directory),
      nics: options.nics ?? 1,
      countInstructions: options.countInstructions ?? false,
      saved: options.saved !== undefined,
    });
    if (options.saved) await machine.resume(options.saved);
    else await machine.connect();
    return new TestContainer(machine, directory);
  }

  get disk(): string {
    return path.join(this.directory, "disk.ext4");
  }

  /** Puts the container's disks in the place of those of a rehearsal. */
  async giveDisks(): Promise<void> {
    await this.machine.insertDisks(disksOf(this.directory));
  }

  /** Puts the disks of a rehearsal into the slots (again). */
  async giveRehearsalDisks(): Promise<void> {
    await this.machine.insertDisks(makeRehearsalDisks(this.directory));
  }

  setup(changes: Partial<Setup> = {}): ReturnType<TestMachine["request"]> {
    return this.machine.request("setup", { ...defaultSetup(), ...changes });
  }

  /** The container's own process: it stays until it is killed. */
  async startInit(options: SpawnOptions = {}): Promise<void> {
    await this.spawn(1, ["sleep", "1000000"], options);
  }

  /** Starts a process with its streams open. */
  async spawn(
    number: number,
    args: string[],
    options: SpawnOptions = {},
  ): Promise<{ pid: number; stdout: Received; stderr: Received }> {
    const { input, ...changes } = options;
    const stdout = this.machine.output(number, Channel.Stdout);
    const stderr = this.machine.output(number, Channel.Stderr);
    const started = this.machine.request("spawn", {
      ...defaultSpawn(),
      ...(input === undefined ? {} : { stdin: true }),
      ...changes,
      process: number,
      args,
    });
    if (input !== undefined) this.machine.feed(number, Buffer.from(input));
    const { pid } = await started;
    return { pid, stdout, stderr };
  }

  /** A number no process has had. */
  number(): number {
    return this.next++;
  }

  /** Runs a process to its end. */
  async run(args: string[], options: SpawnOptions = {}): Promise<Result> {
    const number = this.number();
    const { stdout, stderr } = await this.spawn(number, args, options);
    return this.finish(number, stdout, stderr, options.tty !== undefined);
  }

  /** Waits for the end of a process and its output. */
  async finish(
    number: number,
    stdout: Received,
    stderr: Received,
    terminal = false,
  ): Promise<Result> {
    const exit = await this.machine.exit(number);
    await this.machine.until(
      () => (stdout.ended && (terminal || stderr.ended)) || undefined,
    );
    return {
      exit,
      stdout: Buffer.concat(stdout.chunks).toString(),
      stderr: Buffer.concat(stderr.chunks).toString(),
    };
  }

  async shell(script: string, options: SpawnOptions = {}): Promise<Result> {
    return this.run(["sh", "-c", script], options);
  }

  async stop(): Promise<void> {
    await this.machine.stop();
    fs.rmSync(this.directory, { recursive: true, force: true });
  }
}

export function defaultSpawn(): Spawn {
  return {
    process: 0,
    args: [],
    env: ["PATH=/usr/bin:/bin"],
  };
}

export function defaultSetup(): Setup {
  return {
    time: Date.now(),
    entropy: randomBytes(64).toString("base64"),
    hostname: "box",
    network: {
      interfaces: [
        {
          index: 0,
          name: "eth0",
          mac: "02:42:ac:11:00:02",
          mtu: 1450,
          addresses: ["172.17.0.2/16", "fd00:17::2/64"],
          gateways: ["172.17.0.1", "fd00:17::1"],
        },
      ],
    },
    files: [],
  };
}

interface TestDisk {
  path: string;
  readonly: boolean;
}

function disksOf(directory: string): TestDisk[] {
  return [
    { path: image(), readonly: true },
    { path: path.join(directory, "disk.ext4"), readonly: false },
  ];
}

/** An image with nothing but busybox and traces to look for, and an empty disk. */
function makeRehearsalDisks(directory: string): TestDisk[] {
  const files = path.join(directory, "rehearsal");
  const images = ["erofs", "ext4"].map((type) => `${files}.${type}`);
  const [erofs = "", ext4 = ""] = images;
  fs.mkdirSync(path.join(files, "bin"), { recursive: true });
  fs.copyFileSync("/bin/busybox", path.join(files, "bin/busybox"));
  fs.symlinkSync("busybox", path.join(files, "bin/sh"));
  fs.writeFileSync(path.join(files, "rehearsed"), "");
  fs.rmSync(erofs, { force: true });
  execFileSync(mkfsErofs, ["--quiet", erofs, files]);
  fs.rmSync(files, { recursive: true });
  // The guest learns a disk's size once.
  fs.truncateSync(erofs, 64 << 20);
  fs.rmSync(ext4, { force: true });
  makeDisk(ext4);
  return [
    { path: erofs, readonly: true },
    { path: ext4, readonly: false },
  ];
}

let built: string | undefined;

/** An image of busybox with some users, links that point out of it, and files that do not run. */
function image(): string {
  if (built) return built;
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "hull-agent-image-"));
  process.on("exit", () =>
    fs.rmSync(directory, { recursive: true, force: true }),
  );
  const files = path.join(directory, "root");
  for (const folder of ["bin", "etc", "tmp", "home/app", "private", "secret"])
    fs.mkdirSync(path.join(files, folder), { recursive: true });
  fs.copyFileSync("/bin/busybox", path.join(files, "bin/busybox"));
  const applets = execFileSync("/bin/busybox", ["--list"], {
    encoding: "utf8",
  });
  for (const name of applets.split("\n").filter(Boolean))
    if (name !== "busybox")
      fs.symlinkSync("busybox", path.join(files, "bin", name));
  const write = (name: string, text: string, mode = 0o644) => {
    fs.writeFileSync(path.join(files, name), text);
    fs.chmodSync(path.join(files, name), mode);
  };
  write(
    "etc/passwd",
    "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n1234:x:7:7::/:/bin/sh\n",
  );
  write(
    "etc/group",
    "root:x:0:\napp:x:1000:\nextra:x:2000:other,app\nwheel:x:10:\n",
  );
  write("etc/machine-id", "");
  write("private/readme", "not a program");
  write("private/garbage", "\0\0\0\0", 0o755);
  write("private/owners", "#!/bin/sh\n", 0o700);
  write("private/orphan", "#!/no/such/interpreter\n", 0o755);
  // Programs that say at their very start what they are.
  write("bin/maker", "#!/bin/sh\necho > /made\n", 0o755);
  write("bin/spinner", "#!/bin/sh\nwhile :; do :; done\n", 0o755);
  write("bin/waiter", "#!/bin/sh\nread line < /fifo\n", 0o755);
  execFileSync("mkfifo", ["-m", "666", path.join(files, "fifo")]);
  fs.copyFileSync("/bin/true", path.join(files, "bin/dynamic"));
  for (const library of librariesOf("/bin/true")) {
    const copy = path.join(files, library);
    fs.mkdirSync(path.dirname(copy), { recursive: true });
    fs.copyFileSync(library, copy);
  }
  // As on images with systemd: the file is a link to something that is not there.
  fs.symlinkSync(
    "../run/resolve/stub.conf",
    path.join(files, "etc/resolv.conf"),
  );
  fs.symlinkSync("/../../../../secret", path.join(files, "link"));
  fs.chownSync(path.join(files, "home/app"), 1000, 1000);
  fs.chmodSync(path.join(files, "tmp"), 0o1777);
  fs.chmodSync(path.join(files, "private"), 0o755);
  built = path.join(directory, "image.erofs");
  execFileSync(mkfsErofs, ["--quiet", "-Enoinline_data", built, files]);
  fs.truncateSync(built, 64 << 20);
  return built;
}

/** What a program of this host is linked with, its loader too. */
function librariesOf(program: string): string[] {
  const text = execFileSync("ldd", [program], { encoding: "utf8" });
  return text.match(/\/\S+/g) ?? [];
}

function makeDisk(file: string): void {
  fs.writeFileSync(file, "");
  fs.truncateSync(file, 1 << 30);
  execFileSync("mke2fs", [
    "-q",
    "-t",
    "ext4",
    "-O",
    "^has_journal",
    "-E",
    "lazy_itable_init=1,nodiscard",
    "-m0",
    file,
  ]);
}
