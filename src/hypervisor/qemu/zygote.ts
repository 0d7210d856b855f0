/**
 * A machine that has gone through a start and stands still, for others to be forked from it (jail/zygote.c):
 * they have what it has translated and read, and share it in memory.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { Rehearsal } from "../index.js";
import { answers, type BringUpOptions, restore, start } from "./bring-up.js";
import type { NicBackend } from "./command-line.js";
import { ordersSocket } from "./descriptors.js";
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
}

/** At most one zygote, of the kind that was asked for last. */
export class Zygotes {
  readonly #options: ZygoteOptions;
  #current: Zygote | undefined;
  /** By key. */
  readonly #failures = new Map<string, number>();

  constructor(options: ZygoteOptions) {
    this.#options = options;
  }

  /** How many there are. */
  get length(): number {
    return this.#current ? 1 : 0;
  }

  /**
   * Makes the zygote, where there can be one: machines are restored otherwise, and the reason is in the log. Not to
   * be called again before it is there.
   */
  async prepare(kind: MachineKind, rehearsal: Rehearsal): Promise<void> {
    const { on, shape, key } = kind;
    if (!canFork(on) || shape.nics !== "tap" || this.#isHopeless(key)) return;
    if (this.#current?.key === key) return;
    await this.close();
    try {
      this.#current = await this.#make(kind, rehearsal);
    } catch (error) {
      const reason = (error as Error).message;
      this.#failed(key);
      this.#options.log.warn(
        { reason },
        "the zygote could not be made: machines are restored instead",
      );
    }
  }

  /**
   * A machine that has gone through a start, and runs; only where there is a zygote of that kind.
   * @returns undefined where there is none, or it does not work: the reason is in the log then
   */
  async fork(
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

  /** Ends the zygote; what was forked from it goes on. */
  async close(): Promise<void> {
    const { machine } = this.#current ?? {};
    this.#current = undefined;
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

  /** A copy answers once, to show that it works. */
  async #copy(
    zygote: Zygote,
    { on, shape }: MachineKind,
    nics: NicBackend[],
  ): Promise<QemuMachine> {
    const origin = ordersSocket(zygote.machine.directory);
    const launchIn = async (directory: string, name: string) => {
      const machine = await launch(on.platform, {
        ...{ name, directory, shape, nics, origin },
        memory: { kind: "clone", path: "" },
      });
      await Promise.all([machine.resume(), answers(machine)]);
      return machine;
    };
    const machine = await retried(() => start(this.#options.bringUp, launchIn));
    machine.startKind = "forked";
    return machine;
  }
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
