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

  /**
   * A machine that stands still and has gone through a start; makes the zygote, if need be. Not to be called
   * again before it is there.
   * @returns undefined where there can be none: the reason, if it is one, is in the log
   */
  async forkPaused(
    kind: MachineKind,
    nics: NicBackend[],
    rehearsal: Rehearsal,
  ): Promise<QemuMachine | undefined> {
    if (!canFork(kind.on, nics)) return undefined;
    return this.#counted(kind, async () => {
      const zygote = await this.#zygote(kind, rehearsal);
      if (!zygote) return undefined;
      const machine = await this.#copy(zygote, kind, nics);
      await machine.pause();
      return machine;
    });
  }

  /**
   * The same, and it runs; only where there is a zygote of that kind.
   * @returns undefined where there is none, or it does not work: the reason is in the log then
   */
  async fork(
    kind: MachineKind,
    nics: NicBackend[],
  ): Promise<QemuMachine | undefined> {
    const zygote = this.#current;
    if (zygote?.key !== kind.key || !canFork(kind.on, nics)) return undefined;
    return this.#counted(kind, () => this.#copy(zygote, kind, nics));
  }

  async #counted(
    { key }: MachineKind,
    fork: () => Promise<QemuMachine | undefined>,
  ): Promise<QemuMachine | undefined> {
    if ((this.#failures.get(key) ?? 0) >= MOST_FAILURES) return undefined;
    try {
      const machine = await fork();
      if (machine) this.#failures.delete(key);
      return machine;
    } catch (error) {
      const reason = (error as Error).message;
      this.#options.log.warn(
        { reason },
        "a machine could not be forked: it is restored instead",
      );
      // Those that were asked for at the same time fail with it.
      if (this.#current?.key === key) this.#failed(key);
      await this.close();
      return undefined;
    }
  }

  #failed(key: string): void {
    this.#failures.set(key, (this.#failures.get(key) ?? 0) + 1);
  }

  /** Ends the zygote; what was forked from it goes on. */
  async close(): Promise<void> {
    const { machine } = this.#current ?? {};
    this.#current = undefined;
    await machine?.kill();
  }

  async #zygote(
    { key, on, shape }: MachineKind,
    rehearsal: Rehearsal,
  ): Promise<Zygote | undefined> {
    if (this.#current?.key === key) return this.#current;
    await this.close();
    const { bringUp, discarded, log } = this.#options;
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
      log.warn({ reason }, "the warm pool's zygote ended: another is made");
    });
    try {
      await rehearse(machine, rehearsal);
    } catch (error) {
      this.#failed(key);
      await machine.kill();
      throw error;
    }
    this.#current = zygote;
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
function canFork({ platform }: TemplatePlatform, nics: NicBackend[]): boolean {
  return (
    platform.accelerator === "tcg" &&
    platform.jail.room !== undefined &&
    nics.every(({ kind }) => kind === "tap")
  );
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
