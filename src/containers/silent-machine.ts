/**
 * A machine of an earlier daemon that runs and does not answer: its host may be busy, or somebody has stopped
 * its process. It is asked again until it answers or has ended.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Unavailable } from "../errors.js";
import type {
  Hypervisor,
  Machine,
  MachineRecord,
} from "../hypervisor/index.js";

/** It is asked again after so long, in ms, which doubles each time up to the second. */
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 5000;

export class SilentMachine {
  readonly #record: MachineRecord;
  readonly #hypervisor: Hypervisor;
  #question: Promise<Machine | undefined> | undefined;

  /** @param question that was asked and is not answered yet, or was in vain */
  constructor(
    record: MachineRecord,
    hypervisor: Hypervisor,
    question: Promise<Machine | undefined>,
  ) {
    this.#record = record;
    this.#hypervisor = hypervisor;
    this.#question = question;
    // Whoever waits for it learns of it.
    question.catch(() => undefined);
  }

  /**
   * Resolves when it answers; undefined: it has ended.
   * @param over whether nobody is interested any more
   */
  async answer(over: () => boolean): Promise<Machine | undefined> {
    for (let pause = FIRST_PAUSE_MS; ;) {
      try {
        const question =
          this.#question ?? this.#hypervisor.reattach(this.#record);
        this.#question = undefined;
        return await question;
      } catch (error) {
        if (!(error instanceof Unavailable)) throw error;
      }
      await sleep(pause, undefined, { ref: false });
      if (over()) return undefined;
      pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
    }
  }

  /** Ends its process. */
  end(): Promise<void> {
    return this.#hypervisor.end(this.#record);
  }
}
