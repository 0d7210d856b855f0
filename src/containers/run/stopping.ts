/** Stop and kill: a signal, its time, SIGKILL, and in the end the machine. */
import { INIT_PROCESS } from "../../../protocol/index.js";
import { NotModified } from "../../errors.js";
import { faultPoint } from "../../fault.js";
import type { Container } from "../container.js";
import { notRunning } from "../execs.js";
import { SIGKILL, signalNumber } from "../signals.js";
import type { RunContext } from "./context.js";
import type { Pausing } from "./pausing.js";
import { within } from "./within.js";

/** In seconds, where neither the request nor the container says. */
const DEFAULT_STOP_TIMEOUT = 10;
/** How long a guest may take to report a death after SIGKILL before its machine is ended, in ms. */
const KILL_LIMIT = 10_000;
/** How long a guest may take to take a SIGKILL; one that does not hangs, in ms. */
const ANSWER_LIMIT = 5_000;

export interface StopOptions {
  /** In seconds; -1: as long as it takes. */
  timeout?: number;
  signal?: string;
}

export class Stopping {
  readonly #context: RunContext;
  readonly #pausing: Pausing;

  constructor(context: RunContext, pausing: Pausing) {
    this.#context = context;
    this.#pausing = pausing;
  }

  /**
   * Asks the process to end, and makes it end after `timeout` seconds (-1: never).
   * @throws {NotModified} it does not run
   */
  async stop(container: Container, options: StopOptions): Promise<void> {
    const { config, state } = container.record;
    const signal = signalNumber(
      options.signal || config.StopSignal || "SIGTERM",
    );
    const seconds =
      options.timeout ?? config.StopTimeout ?? DEFAULT_STOP_TIMEOUT;
    if (container.cancelRestart) {
      state.manuallyStopped = true;
      container.cancelRestart();
      await container.save();
      return;
    }
    // A start that is under way comes first.
    await container.exclusive(() => Promise.resolve());
    if (!container.isRunning) throw new NotModified("already stopped");
    state.manuallyStopped = true;
    await this.#goOn(container);
    const end = ended(container);
    // A guest that hangs does not answer: the time runs all the same.
    void this.#signal(container, signal).then(() =>
      faultPoint("stop.signalled"),
    );
    if (!(await within(end, seconds < 0 ? Infinity : seconds * 1000))) {
      await this.#forceEnd(container, end);
    }
    this.#context.tell(container, "stop");
  }

  /**
   * Sends a signal to the container's process; with SIGKILL, waits for its end.
   * @throws {Conflict} it does not run
   */
  async kill(container: Container, signal: string): Promise<void> {
    const number = signalNumber(signal || "SIGKILL");
    const { state, config } = container.record;
    if (!container.isRunning) throw notRunning(container);
    if (number !== SIGKILL) {
      if (number === signalNumber(config.StopSignal || "SIGTERM")) {
        state.manuallyStopped = true;
      }
      await this.#signal(container, number);
      return;
    }
    state.manuallyStopped = true;
    await this.#goOn(container);
    await this.#forceEnd(container, ended(container));
  }

  /** A process that stands still takes no signal. */
  async #goOn(container: Container): Promise<void> {
    if (container.record.state.status !== "paused" || container.silent) return;
    await this.#pausing.unpause(container);
  }

  /** SIGKILL, and if the guest does not report a death, the end of the machine. */
  async #forceEnd(container: Container, end: Promise<unknown>): Promise<void> {
    container.stdio.hurry();
    if (container.silent) {
      await container.silent.end();
      await end;
      return;
    }
    const heard = await this.#signal(container, SIGKILL, ANSWER_LIMIT);
    if (heard && (await within(end, KILL_LIMIT))) return;
    this.#context.log.warn(
      { container: container.id },
      "the guest does not answer: its machine is ended",
    );
    await container.machine?.kill();
    await end;
  }

  /** @returns whether the guest has answered within `limit` ms */
  async #signal(
    container: Container,
    signal: number,
    limit = KILL_LIMIT,
  ): Promise<boolean> {
    this.#context.tell(container, "kill", { signal: String(signal) });
    const request = container.machine?.agent.request("signal", {
      process: INIT_PROCESS,
      signal,
    });
    // It may have ended by itself meanwhile, or the guest hangs: either is seen by who waits.
    return within(
      (request ?? Promise.resolve()).catch(() => undefined),
      limit,
    );
  }
}

/** Resolves when the run that is under way has been booked as ended. */
function ended(container: Container): Promise<unknown> {
  return container.wait("next-exit", new AbortController().signal);
}
