import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { Unavailable } from "../../errors.js";
import type {
  Hypervisor,
  HypervisorInfo,
  Machine,
  MachineRecord,
  MachineSpec,
} from "../index.js";
import { chooseAccelerator, type AcceleratorSetting } from "./accelerator.js";
import { readGuestFile } from "./guest-image.js";
import { launch, reattach, type Platform } from "./launch.js";
import { checkHostMemory, memoryMiB } from "./memory.js";
import { endOrphans } from "./orphans.js";
import { hostTscKhz } from "./tsc.js";

const TCG_WARNING =
  "WARNING: Containers run under TCG emulation, which QEMU does not consider a security boundary: run trusted images only, or use a host with KVM";

export interface QemuOptions {
  /** PVH kernel, an ELF file. */
  kernel: string;
  /** The agent as /init of a cpio archive. */
  initramfs: string;
  accelerator: AcceleratorSetting;
  /** Where the driver remembers what it found out about the host. Must exist. */
  stateDirectory: string;
  /** For short-lived sockets: a short path. Made when it is not there. */
  runDirectory: string;
  /** Default: qemu-system-x86_64 of the PATH. */
  binary?: string;
}

/** Runs machines as QEMU microvms. */
export class QemuHypervisor implements Hypervisor {
  readonly #options: QemuOptions;
  #ready: Promise<{ platform: Platform; info: HypervisorInfo }> | undefined;

  constructor(options: QemuOptions) {
    this.#options = options;
  }

  async info(): Promise<HypervisorInfo> {
    return (await this.#prepare()).info;
  }

  async start(spec: MachineSpec): Promise<Machine> {
    const { platform } = await this.#prepare();
    await checkHostMemory(memoryMiB(spec.memoryBytes));
    return launch(platform, spec);
  }

  reattach(record: MachineRecord): Promise<Machine | undefined> {
    return reattach(record);
  }

  async endOrphans(root: string, known: MachineRecord[]): Promise<number> {
    const uuids = known.map((record) => String(record["uuid"]));
    return (await endOrphans(root, new Set(uuids))).length;
  }

  /** Once, unless it fails. */
  #prepare(): Promise<{ platform: Platform; info: HypervisorInfo }> {
    this.#ready ??= this.#examine().catch((error: unknown) => {
      this.#ready = undefined;
      throw error;
    });
    return this.#ready;
  }

  async #examine(): Promise<{ platform: Platform; info: HypervisorInfo }> {
    const { binary = "qemu-system-x86_64", ...options } = this.#options;
    const [version, kernel, initramfs, tscKhz] = await Promise.all([
      qemuVersion(binary),
      readGuestFile(options.kernel, "the guest kernel cannot be read"),
      readGuestFile(options.initramfs, "the guest's agent cannot be read"),
      hostTscKhz(),
    ]);
    const common = {
      binary,
      kernel: options.kernel,
      initramfs: options.initramfs,
      tscKhz,
    };
    const { accelerator, reason } = await chooseAccelerator({
      setting: options.accelerator,
      platform: common,
      subject: {
        kernelHash: kernel.hash,
        initramfsHash: initramfs.hash,
        qemuVersion: version,
      },
      memoryFile: join(options.stateDirectory, "accelerator.json"),
      runDirectory: options.runDirectory,
    });
    return {
      platform: { ...common, accelerator },
      info: {
        driver: "qemu",
        version,
        accelerator,
        reason,
        kernel: kernel.release,
        agent: `sha256:${initramfs.hash.slice(0, 12)}`,
        warnings: accelerator === "tcg" ? [TCG_WARNING] : [],
      },
    };
  }
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
