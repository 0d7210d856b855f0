/**
 * A machine that has gone through a start and stands still, for others to be forked from it (jail/zygote.c):
 * they have what it has translated and read, and share it in memory.
 *
 * A second one is forked from it and furnished (furnish.ts) for containers of the image that was used last. It has
 * run nothing of the image: the agent has mounted it, and read.
 */
import { rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { Furnishing, Rehearsal } from "../index.js";
import { answers, type BringUpOptions, restore, start } from "./bring-up.js";
import type { NicBackend } from "./command-line.js";
import { ordersSocket } from "./descriptors.js";
import { FrozenDisk } from "./frozen-disk.js";
import { furnish, giveAhead } from "./furnish.js";
import { isGone, isSame } from "./furnishing.js";
import { launch } from "./launch.js";
import type { QemuMachine } from "./machine.js";
import { rehearse } from "./rehearse.js";
import type { MachineShape } from "./shape.js";
import type { TemplatePlatform } from "./templates.js";

/** A zygote one of whose threads is at work cannot be forked at that moment. */
const TRIES = 5;
const RETRY_MS = 50;
/** After so many forks that failed in a row there are no more zygotes of that key. */
const MOST_FAILURES = 3;

/** Before the key: failures of the furnished one. */
const FURNISHED = "furnished ";

/** What a zygote and its copies have in common. */
export interface MachineKind {
  on: TemplatePlatform;
  shape: MachineShape;
  /** Of the platform and the shape. */
  key: string;
}

export interface ZygoteOptions {
  bringUp: BringUpOptions;
  nics: () => Promise<NicBackend[]>;
  /** Called with the NICs of a zygote that has ended. */
  discarded: (nics: NicBackend[]) => void;
  /** Called when one has ended by itself, or is of no use. */
  lost: () => void;
  log: Logger;
}

interface Zygote {
  key: string;
  machine: QemuMachine;
  /** What its copies have ahead. */
  furnished?: { furnishing: Furnishing; disk: FrozenDisk };
}

/** At most one zygote for any container, of the kind that was asked for last, and one that is furnished. */
export class Zygotes {
  readonly #options: ZygoteOptions;
  #current: Zygote | undefined;
  #furnished: Zygote | undefined;
  /** By key. */
  readonly #failures = new Map<string, number>();

  constructor(options: ZygoteOptions) {
    this.#options = options;
  }

  /** How many there are. */
  get length(): number {
    return (this.#current ? 1 : 0) + (this.#furnished ? 1 : 0);
  }

  /**
   * Makes the zygotes, where there can be any: machines are restored otherwise, and the reason is in the log. Not to
   * be called again before they are there.
   * @param wish how one is to be furnished; none is where nothing is wished for
   */
  async prepare(
    kind: MachineKind,
    rehearsal: Rehearsal,
    wish?: Furnishing,
  ): Promise<void> {
    const { on, shape, key } = kind;
    if (!canFork(on) || shape.nics !== "tap" || this.#isHopeless(key)) return;
    if (this.#current?.key !== key) await this.#renew(kind, rehearsal);
    if (wish && !(await isGone(wish))) {
      await this.#prepareFurnished(kind, rehearsal, wish);
    }
  }

  async #renew(kind: MachineKind, rehearsal: Rehearsal): Promise<void> {
    await this.close();
    try {
      this.#current = await this.#make(kind, rehearsal);
    } catch (error) {
      const reason = (error as Error).message;
      this.#failed(kind.key);
      this.#options.log.warn(
        { reason },
        "the zygote could not be made: machines are restored instead",
      );
    }
  }

  async #prepareFurnished(
    kind: MachineKind,
    rehearsal: Rehearsal,
    wish: Furnishing,
  ): Promise<void> {
    const origin = this.#current;
    if (!origin || this.#isHopeless(FURNISHED + kind.key)) return;
    try {
      if (!this.#furnished || !isSame(furnishingOf(this.#furnished), wish)) {
        await this.#endFurnished();
        this.#furnished = await this.#furnish(origin, kind, rehearsal, wish);
      }
      await this.#furnished.furnished?.disk.stock();
    } catch (error) {
      await this.#giveUpFurnished(kind.key, error as Error);
    }
  }

  /**
   * A machine that has gone through a start, and runs; only where there is a zygote of that kind.
   * @param wish it is furnished so where there is a zygote that is
   * @returns undefined where there is none, or it does not work: the reason is in the log then
   */
  async fork(
    kind: MachineKind,
    nics: NicBackend[],
    wish?: Furnishing,
  ): Promise<QemuMachine | undefined> {
    return (
      (wish && (await this.#forkFurnished(kind, nics, wish))) ??
      (await this.#forkAny(kind, nics))
    );
  }

  async #forkFurnished(
    kind: MachineKind,
    nics: NicBackend[],
    wish: Furnishing,
  ): Promise<QemuMachine | undefined> {
    const zygote = this.#furnished;
    if (zygote?.key !== kind.key || !isSame(furnishingOf(zygote), wish)) {
      return undefined;
    }
    try {
      const machine = await this.#copy(zygote, kind, nics);
      this.#failures.delete(FURNISHED + kind.key);
      return machine;
    } catch (error) {
      // Unless it was ended meanwhile, for another one.
      if (this.#furnished === zygote) {
        await this.#giveUpFurnished(kind.key, error as Error);
      }
      return undefined;
    }
  }

  async #giveUpFurnished(key: string, { message }: Error): Promise<void> {
    this.#failed(FURNISHED + key);
    this.#options.log.warn(
      { reason: message },
      "no machine could be forked for the image that was used last: it is one for any image instead",
    );
    await this.#endFurnished();
  }

  async #forkAny(
    kind: MachineKind,
    nics: NicBackend[],
  ): Promise<QemuMachine | undefined> {
    const { key } = kind;
    const zygote = this.#current;
    if (zygote?.key !== key || this.#isHopeless(key)) return undefined;
    try {
      const machine = await this.#copy(zygote, kind, nics);
      this.#failures.delete(key);
      return machine;
    } catch (error) {
      const reason = (error as Error).message;
      this.#options.log.warn(
        { reason },
        "a machine could not be forked: it is restored instead",
      );
      // Those that were asked for at the same time fail with it.
      if (this.#current === zygote) {
        this.#failed(key);
        await this.close();
        this.#options.lost();
      }
      return undefined;
    }
  }

  #failed(key: string): void {
    this.#failures.set(key, (this.#failures.get(key) ?? 0) + 1);
  }

  #isHopeless(key: string): boolean {
    return (this.#failures.get(key) ?? 0) >= MOST_FAILURES;
  }

  /** The room of an image that was removed is to be free. */
  async letImagesGo(): Promise<void> {
    const zygote = this.#furnished;
    if (!zygote || !(await isGone(furnishingOf(zygote)))) return;
    if (this.#furnished === zygote) await this.#endFurnished();
  }

  /** Ends the zygotes; what was forked from them goes on. */
  async close(): Promise<void> {
    const { machine } = this.#current ?? {};
    this.#current = undefined;
    await Promise.all([this.#endFurnished(), machine?.kill()]);
  }

  async #endFurnished(): Promise<void> {
    const { machine } = this.#furnished ?? {};
    this.#furnished = undefined;
    await machine?.kill();
  }

  /** @returns undefined while there is no template */
  async #make(
    { key, on, shape }: MachineKind,
    rehearsal: Rehearsal,
  ): Promise<Zygote | undefined> {
    const { bringUp, discarded, lost, log } = this.#options;
    const nics = await this.#options.nics();
    const machine = await restore(on, shape, nics, bringUp, "zygote");
    if (typeof machine !== "object") {
      discarded(nics);
      return undefined;
    }
    const zygote = { key, machine };
    void machine.exited.then(({ reason }) => {
      discarded(nics);
      if (this.#current !== zygote) return;
      this.#current = undefined;
      log.warn({ reason }, "the zygote ended: another is made");
      lost();
    });
    try {
      await rehearse(machine, rehearsal);
    } catch (error) {
      await machine.kill();
      throw error;
    }
    return zygote;
  }

  /** Forks a zygote from another one, and furnishes it. */
  async #furnish(
    origin: Zygote,
    kind: MachineKind,
    rehearsal: Rehearsal,
    furnishing: Furnishing,
  ): Promise<Zygote> {
    const { discarded, lost, log } = this.#options;
    const nics = await this.#options.nics();
    let machine: QemuMachine;
    try {
      machine = await this.#copy(origin, kind, nics, "zygote");
    } catch (error) {
      discarded(nics);
      throw error;
    }
    void machine.exited.then(() => discarded(nics));
    try {
      const blank = await rehearsal.blank(furnishing.blankBytes);
      await furnish(machine, furnishing, blank, rehearsal);
      const disk = new FrozenDisk(blank, () => rehearsal.copyOf(blank));
      const { key } = kind;
      const zygote = { key, machine, furnished: { furnishing, disk } };
      void machine.exited.then(async ({ reason }) => {
        await disk.drop();
        if (this.#furnished !== zygote) return;
        this.#furnished = undefined;
        log.warn({ reason }, "the furnished zygote ended: another is made");
        lost();
      });
      return zygote;
    } catch (error) {
      await machine.kill();
      throw error;
    }
  }

  /** A copy answers once, to show that it works. */
  async #copy(
    { machine: { directory: place }, furnished }: Zygote,
    { on, shape }: MachineKind,
    nics: NicBackend[],
    as: "blank" | "zygote" = "blank",
  ): Promise<QemuMachine> {
    const origin = ordersSocket(place);
    const disk = furnished && {
      path: await furnished.disk.take(),
      insteadOf: furnished.disk.path,
    };
    const launchIn = async (directory: string, name: string) => {
      const machine = await launch(on.platform, {
        ...{ name, directory, shape, nics, origin, disk },
        memory: { kind: "clone", path: "" },
        ...(as === "zygote" && { orders: ordersSocket(directory) }),
      });
      await Promise.all([machine.resume(), answers(machine)]);
      return machine;
    };
    try {
      const machine = await retried(() =>
        start(this.#options.bringUp, launchIn, as),
      );
      machine.startKind = "forked";
      if (furnished && disk) {
        giveAhead(machine, furnished.furnishing, disk.path);
      }
      return machine;
    } catch (error) {
      if (disk) await rm(disk.path, { force: true });
      throw error;
    }
  }
}

function furnishingOf({ furnished }: Zygote): Furnishing {
  if (!furnished) throw new Error("that zygote is for any container");
  return furnished.furnishing;
}

/** An accelerator's state is the host kernel's, and only a confined machine has what forks it. */
function canFork({ platform }: TemplatePlatform): boolean {
  return platform.accelerator === "tcg" && platform.jail.room !== undefined;
}

async function retried<T>(action: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await action();
    } catch (error) {
      const busy = /busy/.test((error as Error).message);
      if (!busy || tries === TRIES) throw error;
      await sleep(RETRY_MS);
    }
  }
}
