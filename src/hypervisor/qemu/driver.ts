import { execFile } from "node:child_process";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Logger } from "pino";
import { Unavailable } from "../../errors.js";
import type {
  BlankMachine,
  Furnishing,
  Hypervisor,
  HypervisorInfo,
  Machine,
  MachineRecord,
  MachineSize,
  Rehearsal,
  SavedMachine,
  Taps,
} from "../index.js";
import { NIC_SLOTS } from "../slots.js";
import { chooseAccelerator, type AcceleratorSetting } from "./accelerator.js";
import { Blank } from "./blank.js";
import { bringUp, type BringUpOptions, goOn, restore } from "./bring-up.js";
import type { NicBackend } from "./command-line.js";
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
import { endMachine, reattach } from "./reattach.js";
import type { QemuMachine } from "./machine.js";
import { availableShare, checkHostMemory, memoryMiB } from "./memory.js";
import { endOrphans, type GuestProcess, guestProcesses } from "./orphans.js";
import { furnish, load } from "./furnish.js";
import { rehearse } from "./rehearse.js";
import { bringBack, checkSaved, goOnWith, kernelOf } from "./saved.js";
import { type MachineShape, shapeName, shapeOf } from "./shape.js";
import { type TemplatePlatform, Templates } from "./templates.js";
import { hostTscKhz } from "./tsc.js";
import { type Pooled, WarmPool } from "./warm-pool.js";
import { Zygotes } from "./zygote.js";

const TCG_WARNING =
  "WARNING: Containers run under TCG emulation, which QEMU does not consider a security boundary: run trusted images only, or use a host with KVM";

/** What `#files` looks at, in its order. */
const MACHINE_FILES = ["QEMU", "the guest kernel", "the agent"];

/** How long after a boot the template is made that would have spared it, in ms. */
const MAKE_LATER_MS = 1000;

export interface QemuOptions {
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
  /** Absent: machines have QEMU's user mode. */
  taps?: Taps;
  /** Default: true. False: every machine is booted. */
  templates?: boolean;
  /**
   * How many machines of the expected size stand ready, what they do before, and whether there is a zygote,
   * where there can be. Default: none.
   */
  warm?: { machines: number; zygote: boolean; rehearsal: Rehearsal };
  log: Logger;
  jail: JailOptions;
  /** Default: qemu-system-x86_64 of the PATH. */
  binary?: string;
}

interface Prepared extends TemplatePlatform {
  info: HypervisorInfo;
  /** Tells whether QEMU, kernel or agent were replaced since. */
  files: string;
}

/** Runs machines as QEMU microvms. */
export class QemuHypervisor implements Hypervisor {
  readonly #options: QemuOptions;
  readonly #templates: Templates;
  readonly #bringUp: BringUpOptions;
  readonly #pool: WarmPool<QemuMachine>;
  /** What the pool's machines are forked from, where that can be. */
  readonly #zygotes: Zygotes;
  /** The size that the pool's machines have. */
  #expected: MachineSize | undefined;
  #foundNicKind: MachineShape["nics"] | undefined;
  #cleared: Promise<void> | undefined;
  /** What ran when this daemon had started nothing yet. */
  #left: GuestProcess[] | undefined;
  /** The file that QEMU's name stands for. */
  #program: string | undefined;
  /** By the name of the kernel; "" is the daemon's own. */
  readonly #ready = new Map<string, Promise<Prepared>>();
  #groups: Promise<Groups> | undefined;

  constructor(options: QemuOptions) {
    this.#options = options;
    const { log, machineRoot, stateDirectory, runDirectory, taps } = options;
    this.#templates = new Templates({
      enabled: options.templates ?? true,
      directory: join(stateDirectory, "templates"),
      runDirectory,
      nics: (shape) => this.#templateNics(shape),
      taps,
      log,
    });
    this.#bringUp = {
      machineRoot,
      templates: this.#templates,
      log,
    };
    this.#zygotes = new Zygotes({
      bringUp: this.#bringUp,
      nics: () => this.#nics(),
      discarded: (nics) => this.#discardTaps(tapsOf(nics)),
      lost: () => this.#pool.fillWhenQuiet(),
      log,
    });
    const { machines = 0, zygote = false, rehearsal } = options.warm ?? {};
    const templates = options.templates !== false;
    this.#pool = new WarmPool({
      size: templates ? machines : 0,
      make: async (furnishing) =>
        rehearsal && this.#makeWarm(rehearsal, furnishing),
      discarded: ({ nics }) => this.#discardTaps(tapsOf(nics)),
      ...(zygote &&
        templates &&
        rehearsal && {
          origins: {
            count: () => this.#zygotes.length,
            prepare: (wish) => this.#prepareZygotes(rehearsal, wish),
            letImagesGo: () => this.#zygotes.letImagesGo(),
            close: () => this.#zygotes.close(),
          },
        }),
      availableMemory: availableShare,
      log,
    });
  }

  async info(): Promise<HypervisorInfo> {
    return (await this.#prepare()).info;
  }

  get warmMachines(): number {
    return this.#pool.length;
  }

  get zygotes(): number {
    return this.#zygotes.length;
  }

  /** Makes the template of such machines in the background, unless it is there, and fills the pool. */
  async expect(size: MachineSize): Promise<void> {
    this.#expected = size;
    const { on, shape } = await this.#kind(size);
    const template = await this.#templates.open(on, shape);
    if (template) await template.state.close();
    else await this.#templates.make(on, shape);
    await this.#pool.fill();
  }

  async prepare(
    size: MachineSize,
    furnishing?: Furnishing,
  ): Promise<BlankMachine> {
    const needed = memoryMiB(size.memoryBytes);
    const [{ on, shape }] = await Promise.all([
      this.#kind(size),
      checkHostMemory(needed),
    ]);
    const warm =
      size.kernel === undefined
        ? this.#takeWarm(on, shape, furnishing)
        : undefined;
    const nics = warm?.nics ?? (await this.#nics());
    const taps = tapsOf(nics);
    const machine = warm
      ? goOn(warm.machine, on, shape, nics, this.#bringUp)
      : this.#forkOrBringUp(on, shape, nics, furnishing);
    const discardTaps = () => this.#discardTaps(taps);
    machine.then(({ exited, startKind }) => {
      void exited.then(discardTaps);
      if (startKind === "cold") this.#makeLater(on, shape);
    }, discardTaps);
    return new Blank(taps, machine);
  }

  async prepareSaved(saved: SavedMachine): Promise<BlankMachine> {
    const [{ platform, info }, kind] = await Promise.all([
      this.#prepare(kernelOf(saved)),
      this.#nicKind(),
    ]);
    const record = checkSaved(saved, info, kind);
    await checkHostMemory(record.shape.memoryMiB);
    const nics = await this.#nics();
    const taps = tapsOf(nics);
    const { machineRoot } = this.#options;
    const machine = bringBack(platform, record, saved.file, nics, machineRoot);
    const discardTaps = () => this.#discardTaps(taps);
    machine.then(({ exited }) => void exited.then(discardTaps), discardTaps);
    return new Blank(taps, machine, goOnWith);
  }

  async reattach(record: MachineRecord): Promise<Machine | undefined> {
    const { groups } = await this.#openGroups();
    const sendFiles = loadSender(this.#options.jail.programs.send);
    return reattach(record, sendFiles, groups);
  }

  async end(record: MachineRecord): Promise<void> {
    const { groups } = await this.#openGroups();
    await endMachine(record, groups);
  }

  endOrphans(root: string, known: MachineRecord[]): Promise<number> {
    const uuids = known.map((record) => String(record["uuid"]));
    return Promise.resolve(this.#endOrphans(root, uuids));
  }

  async close(): Promise<void> {
    await Promise.all([this.#templates.close(), this.#pool.close()]);
    await (await this.#groups)?.groups?.close();
  }

  async #kind(
    size: MachineSize,
  ): Promise<{ on: Prepared; shape: MachineShape }> {
    const [on, nics] = await Promise.all([
      this.#prepare(size.kernel),
      this.#nicKind(),
    ]);
    return { on, shape: shapeOf(size, nics) };
  }

  #takeWarm(
    on: TemplatePlatform,
    shape: MachineShape,
    furnishing: Furnishing | undefined,
  ): Pooled<QemuMachine> | undefined {
    if (!this.#expected) return undefined;
    const expected = shapeOf(this.#expected, shape.nics);
    return shapeName(shape) === shapeName(expected)
      ? this.#pool.take(poolKey(on, shape), furnishing)
      : undefined;
  }

  /** Where the pool is empty, or there is none for such machines. */
  async #forkOrBringUp(
    on: TemplatePlatform,
    shape: MachineShape,
    nics: NicBackend[],
    furnishing: Furnishing | undefined,
  ): Promise<QemuMachine> {
    const kind = { on, shape, key: poolKey(on, shape) };
    return (
      (await this.#zygotes.fork(kind, nics, furnishing)) ??
      (await bringUp(on, shape, nics, this.#bringUp))
    );
  }

  async #prepareZygotes(
    rehearsal: Rehearsal,
    wish: Furnishing | undefined,
  ): Promise<void> {
    if (!this.#expected) return;
    const { on, shape } = await this.#kind(this.#expected);
    const kind = { on, shape, key: poolKey(on, shape) };
    await this.#zygotes.prepare(kind, rehearsal, wish);
  }

  /** A machine for the pool; undefined while there is no template. */
  async #makeWarm(
    rehearsal: Rehearsal,
    furnishing: Furnishing | undefined,
  ): Promise<Pooled<QemuMachine> | undefined> {
    if (!this.#expected) return undefined;
    const { on, shape } = await this.#kind(this.#expected);
    const nics = await this.#nics();
    const key = poolKey(on, shape);
    let machine: QemuMachine | string | undefined;
    try {
      const kind = { on, shape, key };
      machine = await this.#zygotes.fork(kind, nics, furnishing);
      if (machine) {
        await machine.pause();
      } else {
        machine = await restore(on, shape, nics, this.#bringUp);
        if (typeof machine !== "object") {
          this.#discardTaps(tapsOf(nics));
          return undefined;
        }
        await rehearse(machine, rehearsal);
      }
      if (furnishing && !machine.furnished) {
        const blank = await rehearsal.blank(furnishing.blankBytes);
        await furnish(machine, furnishing, blank, rehearsal);
      }
      if (furnishing) await load(machine, furnishing, rehearsal);
      return { machine, nics, key, ...(furnishing && { furnishing }) };
    } catch (error) {
      if (typeof machine === "object") await machine.kill();
      this.#discardTaps(tapsOf(nics));
      throw error;
    }
  }

  #openGroups(): Promise<Groups> {
    const { jail, machineRoot } = this.#options;
    this.#groups ??= openGroups(jail, machineRoot);
    return this.#groups;
  }

  /** The next machine of that shape is to find a template; the one that starts now goes first. */
  #makeLater(on: TemplatePlatform, shape: MachineShape): void {
    setTimeout(() => {
      void this.#templates.make(on, shape).then(() => this.#pool.fill());
    }, MAKE_LATER_MS).unref();
  }

  /** The NICs of a machine that is to run. */
  async #nics(): Promise<NicBackend[]> {
    const { taps } = this.#options;
    const made = await Promise.all(
      Array.from({ length: NIC_SLOTS }, async () => taps?.createTap()),
    );
    return made.map((device, slot) =>
      device !== undefined
        ? { kind: "tap", device }
        : { kind: slot === 0 ? "user" : "hub" },
    );
  }

  /** Like `nics`, but none of user mode: its state could not be loaded by a machine with taps. */
  async #templateNics(shape: MachineShape): Promise<NicBackend[]> {
    if (shape.nics === "tap") return this.#nics();
    return Array.from({ length: NIC_SLOTS }, () => ({ kind: "hub" }));
  }

  /** Found out once, by making a tap. */
  async #nicKind(): Promise<MachineShape["nics"]> {
    if (this.#foundNicKind === undefined) {
      const tap = await this.#options.taps?.createTap();
      if (tap !== undefined) this.#discardTaps([tap]);
      this.#foundNicKind = tap === undefined ? "user" : "tap";
    }
    return this.#foundNicKind;
  }

  #discardTaps(devices: readonly string[]): void {
    for (const device of devices) this.#options.taps?.discardTap(device);
  }

  /** Once, unless it fails or something it depends on was replaced. */
  async #prepare(name = ""): Promise<Prepared> {
    const kernel = this.#kernel(name);
    this.#cleared ??= this.#clearRunDirectory().catch((error: unknown) => {
      this.#cleared = undefined;
      throw error;
    });
    await this.#cleared;
    const files = await this.#files(kernel.path);
    const ready = await this.#ready.get(name);
    if (ready && (ready.files !== files || (await roomIsGone(ready)))) {
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

  #endOrphans(root: string, uuids: string[]): number {
    this.#left ??= guestProcesses();
    return endOrphans(this.#left, root, new Set(uuids)).length;
  }

  /** A daemon that was killed while it tried an accelerator or made a template leaves that machine. */
  async #clearRunDirectory(): Promise<void> {
    const { runDirectory } = this.#options;
    this.#endOrphans(runDirectory, []);
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

  async #files(kernel: string): Promise<string> {
    const { binary = "qemu-system-x86_64", initramfs } = this.#options;
    this.#program ??= await findProgram(binary);
    const files = [this.#program, kernel, initramfs];
    const found = await Promise.all(files.map(fileIdentity));
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
      await this.#openGroups(),
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

async function roomIsGone({ platform }: Prepared): Promise<boolean> {
  const { room } = platform.jail;
  return room !== undefined && (await fileIdentity(room.directory)) === "";
}

function poolKey(on: TemplatePlatform, shape: MachineShape): string {
  return `${on.platformKey} ${shapeName(shape)}`;
}

function tapsOf(nics: NicBackend[]): string[] {
  return nics.flatMap((nic) => (nic.kind === "tap" ? [nic.device] : []));
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
