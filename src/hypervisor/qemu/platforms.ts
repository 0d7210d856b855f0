/**
 * What machines run on: QEMU, a guest kernel and the agent, the accelerator and the jail. Looked into once for each
 * kernel, and again when one of them was replaced.
 */
import { execFile } from "node:child_process";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Logger } from "pino";
import { Unavailable } from "../../errors.js";
import type { HypervisorInfo } from "../index.js";
import { chooseAccelerator, type AcceleratorSetting } from "./accelerator.js";
import { readGuestFile } from "./guest-image.js";
import { fileIdentity, findProgram, platformKey } from "./host-identity.js";
import {
  type Groups,
  type JailOptions,
  loadSender,
  openGroups,
  openJail,
} from "./jail.js";
import { checkPvhKernel, type NamedKernel, namedKernel } from "./kernels.js";
import type { Orphans } from "./orphans.js";
import type { TemplatePlatform, Templates } from "./templates.js";
import { hostTscKhz } from "./tsc.js";

const TCG_WARNING =
  "WARNING: Containers run under TCG emulation, which QEMU does not consider a security boundary: run trusted images only, or use a host with KVM";

/** What `#files` looks at, in its order. */
const MACHINE_FILES = ["QEMU", "the guest kernel", "the agent"];

export interface PlatformOptions {
  /** PVH kernel, an ELF file. */
  kernel: string;
  kernelParameters?: string;
  /** Others, by name; see kernels.ts. */
  kernels?: Readonly<Record<string, NamedKernel>>;
  /** The agent as /init of a cpio archive. */
  initramfs: string;
  accelerator: AcceleratorSetting;
  /** Where the driver remembers what it found out about the host. Must exist. */
  stateDirectory: string;
  /** For short-lived sockets: a short path. Made when it is not there. */
  runDirectory: string;
  /** Below it each machine has a folder for its sockets: a short path. */
  machineRoot: string;
  log: Logger;
  jail: JailOptions;
  /** Default: qemu-system-x86_64 of the PATH. */
  binary?: string;
}

/** A platform that was looked into. */
export interface Prepared extends TemplatePlatform {
  info: HypervisorInfo;
  /** Tells whether QEMU, kernel or agent were replaced since. */
  files: string;
}

export class Platforms {
  readonly #options: PlatformOptions;
  readonly #templates: Templates;
  readonly #orphans: Orphans;
  #cleared: Promise<void> | undefined;
  /** The file that QEMU's name stands for. */
  #program: string | undefined;
  /** By the name of the kernel; "" is the daemon's own. */
  readonly #ready = new Map<string, Promise<Prepared>>();
  #groups: Promise<Groups> | undefined;

  constructor(
    options: PlatformOptions,
    templates: Templates,
    orphans: Orphans,
  ) {
    this.#options = options;
    this.#templates = templates;
    this.#orphans = orphans;
  }

  /** Once, unless it fails or something it depends on was replaced. */
  async prepare(name = ""): Promise<Prepared> {
    const kernel = this.#kernel(name);
    this.#cleared ??= this.#clearRunDirectory().catch((error: unknown) => {
      this.#cleared = undefined;
      throw error;
    });
    await this.#cleared;
    const files = this.#files(kernel.path);
    const ready = await this.#ready.get(name);
    if (ready && (ready.files !== files || roomIsGone(ready))) {
      // Unless another start, which looked at the same time, has said and done so.
      if (this.#ready.delete(name)) this.#tellReplaced(ready.files, files);
    }
    let prepared = this.#ready.get(name);
    if (!prepared) {
      prepared = this.#examine(name, kernel, files).catch((error: unknown) => {
        this.#ready.delete(name);
        throw error;
      });
      this.#ready.set(name, prepared);
    }
    return prepared;
  }

  /** The control groups that machines have theirs below; opened once. */
  openGroups(): Promise<Groups> {
    const { jail, machineRoot } = this.#options;
    this.#groups ??= openGroups(jail, machineRoot);
    return this.#groups;
  }

  /** After the last machine was started. */
  async close(): Promise<void> {
    await (await this.#groups)?.groups?.close();
  }

  /** A daemon that was killed while it tried an accelerator or made a template leaves that machine. */
  async #clearRunDirectory(): Promise<void> {
    const { runDirectory } = this.#options;
    this.#orphans.end(runDirectory, []);
    await this.#templates.clear();
    const left = await readdir(runDirectory).catch(() => []);
    for (const name of left) {
      await rm(join(runDirectory, name), { recursive: true, force: true });
    }
  }

  /** @param before what `#files` gave then, and now */
  #tellReplaced(before: string, now: string): void {
    const was = before.split("\n");
    const is = now.split("\n");
    const replaced = MACHINE_FILES.filter((_, at) => was[at] !== is[at]);
    if (replaced.length === 0) return;
    this.#options.log.warn(
      { replaced: replaced.join(", ") },
      "what machines are made of was replaced: they boot until there is a template of the new one",
    );
  }

  #kernel(name: string): NamedKernel {
    const { kernel, kernelParameters = "", kernels } = this.#options;
    if (name === "") return { path: kernel, parameters: kernelParameters };
    return namedKernel(kernels ?? {}, name);
  }

  #files(kernel: string): string {
    const { binary = "qemu-system-x86_64", initramfs } = this.#options;
    this.#program ??= findProgram(binary);
    const files = [this.#program, kernel, initramfs];
    const found = files.map(fileIdentity);
    // It may be elsewhere now: the next call looks.
    if (found[0] === "") this.#program = undefined;
    return found.join("\n");
  }

  async #examine(
    name: string,
    { path, parameters }: NamedKernel,
    files: string,
  ): Promise<Prepared> {
    const { binary = "qemu-system-x86_64", ...rest } = this.#options;
    const options = { ...rest, kernel: path };
    await checkPvhKernel(path);
    const [version, kernel, initramfs, tscKhz] = await Promise.all([
      qemuVersion(binary),
      readGuestFile(options.kernel, "the guest kernel cannot be read"),
      readGuestFile(options.initramfs, "the guest's agent cannot be read"),
      hostTscKhz(),
    ]);
    const { jail, warnings } = await openJail(
      options.jail,
      await this.openGroups(),
      { ...options, binary, root: join(options.stateDirectory, "rooms") },
    );
    const common = {
      binary,
      kernel: options.kernel,
      kernelParameters: parameters,
      initramfs: options.initramfs,
      tscKhz,
      jail,
      sendFiles: loadSender(options.jail.programs.send),
    };
    const subject = {
      kernelHash: kernel.hash,
      initramfsHash: initramfs.hash,
      qemuVersion: version,
    };
    const { accelerator, reason } = await chooseAccelerator({
      setting: options.accelerator,
      platform: common,
      subject,
      memoryFile: join(
        options.stateDirectory,
        name === "" ? "accelerator.json" : `accelerator-${name}.json`,
      ),
      runDirectory: options.runDirectory,
    });
    const platform = { ...common, accelerator };
    return {
      platform,
      platformKey: await platformKey(platform, {
        ...subject,
        qemuFile: files.split("\n")[0] ?? "",
      }),
      files,
      info: {
        driver: "qemu",
        version,
        accelerator,
        reason,
        kernel: kernel.release,
        agent: `sha256:${initramfs.hash.slice(0, 12)}`,
        warnings: [
          ...(accelerator === "tcg" ? [TCG_WARNING] : []),
          ...warnings,
        ],
      },
    };
  }
}

function roomIsGone({ platform }: Prepared): boolean {
  const { room } = platform.jail;
  return room !== undefined && fileIdentity(room.directory) === "";
}

/** @throws {Unavailable} QEMU is not installed or does not run */
async function qemuVersion(binary: string): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(binary, ["--version"], {
      timeout: 10_000,
    });
    return /version (\S+)/.exec(stdout)?.[1] ?? stdout.slice(0, 50).trim();
  } catch (error) {
    throw new Unavailable(
      (error as NodeJS.ErrnoException).code === "ENOENT"
        ? `${binary} is not installed`
        : `${binary} does not run: ${(error as Error).message}`,
    );
  }
}
