/** The operations of the Hypervisor interface: what stands ready, platforms and NICs are files of their own. */
import { join } from "node:path";
import type {
  BlankMachine,
  Disks,
  Furnishing,
  Hypervisor,
  HypervisorInfo,
  Machine,
  MachineRecord,
  MachineSize,
  SavedMachine,
  Taps,
} from "../index.js";
import { Blank } from "./blank.js";
import { type BringUpOptions, goOn } from "./bring-up.js";
import { loadSender } from "./jail.js";
import { checkHostMemory, memoryMiB } from "./memory.js";
import { Nics, tapsOf } from "./nics.js";
import { Orphans } from "./orphans.js";
import { type PlatformOptions, Platforms, type Prepared } from "./platforms.js";
import { endMachine, reattach } from "./reattach.js";
import { bringBack, checkSaved, goOnWith, kernelOf } from "./saved.js";
import { type MachineShape, shapeOf } from "./shape.js";
import { Standby, type Warm } from "./standby.js";
import { Templates } from "./templates.js";

export interface QemuOptions extends PlatformOptions {
  /** Absent: machines have QEMU's user mode. */
  taps?: Taps;
  /** Default: true. False: every machine is booted. */
  templates?: boolean;
  /** Default: none. */
  warm?: Warm;
}

/** Runs machines as QEMU microvms. */
export class QemuHypervisor implements Hypervisor {
  readonly #options: QemuOptions;
  readonly #nics: Nics;
  readonly #templates: Templates;
  readonly #orphans = new Orphans();
  readonly #platforms: Platforms;
  readonly #bringUp: BringUpOptions;
  readonly #standby: Standby;

  constructor(options: QemuOptions) {
    this.#options = options;
    const { log, machineRoot, stateDirectory, runDirectory, taps } = options;
    const { templates = true, warm } = options;
    this.#nics = new Nics(taps);
    this.#templates = new Templates({
      enabled: templates,
      directory: join(stateDirectory, "templates"),
      runDirectory,
      nics: (shape) => this.#nics.makeForTemplate(shape),
      taps,
      log,
    });
    this.#platforms = new Platforms(options, this.#templates, this.#orphans);
    this.#bringUp = {
      machineRoot,
      templates: this.#templates,
      log,
    };
    this.#standby = new Standby({
      warm: templates ? warm : undefined,
      kind: (size) => this.#kind(size),
      nics: this.#nics,
      bringUp: this.#bringUp,
    });
  }

  async info(): Promise<HypervisorInfo> {
    return (await this.#platforms.prepare()).info;
  }

  get warmMachines(): number {
    return this.#standby.warmMachines;
  }

  get zygotes(): number {
    return this.#standby.zygotes;
  }

  async expect(size: MachineSize): Promise<void> {
    await this.#standby.expect(size);
  }

  async prepare(
    size: MachineSize,
    furnishing?: Furnishing,
  ): Promise<BlankMachine> {
    const needed = memoryMiB(size.memoryBytes);
    const { on, shape } = await this.#kind(size);
    checkHostMemory(needed);
    const warm =
      size.kernel === undefined
        ? this.#standby.take(on, shape, furnishing)
        : undefined;
    const nics = warm?.nics ?? (await this.#nics.make());
    const machine = warm
      ? goOn(warm.machine, on, shape, nics, this.#bringUp)
      : this.#standby.forkOrBringUp(on, shape, nics, furnishing);
    const discardTaps = () => this.#nics.discard(nics);
    machine.then(({ exited, startKind }) => {
      void exited.then(discardTaps);
      if (startKind === "cold") this.#standby.makeLater(on, shape);
    }, discardTaps);
    return new Blank(tapsOf(nics), machine);
  }

  anticipate(size: MachineSize, wish?: Disks): void {
    if (size.kernel !== undefined) return;
    this.#kind(size).then(
      ({ on, shape }) => this.#standby.rouse(on, shape, wish),
      // Told to who calls `prepare`.
      () => undefined,
    );
  }

  async prepareSaved(saved: SavedMachine): Promise<BlankMachine> {
    const [{ platform, info }, kind] = await Promise.all([
      this.#platforms.prepare(kernelOf(saved)),
      this.#nics.kind(),
    ]);
    const record = checkSaved(saved, info, kind);
    checkHostMemory(record.shape.memoryMiB);
    const nics = await this.#nics.make();
    const { machineRoot } = this.#options;
    const machine = bringBack(platform, record, saved.file, nics, machineRoot);
    const discardTaps = () => this.#nics.discard(nics);
    machine.then(({ exited }) => void exited.then(discardTaps), discardTaps);
    return new Blank(tapsOf(nics), machine, goOnWith);
  }

  async reattach(record: MachineRecord): Promise<Machine | undefined> {
    const { groups } = await this.#platforms.openGroups();
    const sendFiles = loadSender(this.#options.jail.programs.send);
    return reattach(record, sendFiles, groups);
  }

  async end(record: MachineRecord): Promise<void> {
    const { groups } = await this.#platforms.openGroups();
    await endMachine(record, groups);
  }

  endOrphans(root: string, known: MachineRecord[]): Promise<number> {
    const uuids = known.map((record) => String(record["uuid"]));
    return Promise.resolve(this.#orphans.end(root, uuids));
  }

  async close(): Promise<void> {
    await Promise.all([this.#templates.close(), this.#standby.close()]);
    await this.#platforms.close();
  }

  async #kind(
    size: MachineSize,
  ): Promise<{ on: Prepared; shape: MachineShape }> {
    const [on, nics] = await Promise.all([
      this.#platforms.prepare(size.kernel),
      this.#nics.kind(),
    ]);
    return { on, shape: shapeOf(size, nics) };
  }
}
