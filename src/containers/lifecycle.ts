/**
 * What happens to a container between create and remove. Docker's state machine, with a machine in the
 * place of a process; its parts are in run/.
 */
import { INIT_PROCESS } from "../../protocol/index.js";
import { NotModified } from "../errors.js";
import type { Machine } from "../hypervisor/index.js";
import type { CheckpointPlace } from "./checkpoint/store.js";
import type { Container } from "./container.js";
import { notRunning } from "./execs.js";
import type { SilentMachine } from "./silent-machine.js";
import type { RunContext } from "./run/context.js";
import { Ending } from "./run/ending.js";
import { Pausing } from "./run/pausing.js";
import { PolicyRestarts } from "./run/policy-restarts.js";
import { Starting } from "./run/starting.js";
import { type StopOptions, Stopping } from "./run/stopping.js";
import { machineRoot, tearDown } from "./run/tear-down.js";

export class Lifecycle {
  readonly #context: RunContext;
  readonly #starting: Starting;
  readonly #ending: Ending;
  readonly #pausing: Pausing;
  readonly #stopping: Stopping;

  constructor(context: RunContext) {
    this.#context = context;
    const restarts = new PolicyRestarts(context, (container) =>
      this.#starting.start(container, context.traces.begin(container)),
    );
    this.#ending = new Ending(context, restarts);
    this.#starting = new Starting(context, this.#ending);
    this.#pausing = new Pausing(context);
    this.#stopping = new Stopping(context, this.#pausing);
  }

  /** The daemon goes away: what ends from now on is for the next one to find. */
  close(): void {
    this.#ending.close();
    this.#context.health.close();
  }

  /** Below it each machine has a folder for its sockets. */
  get machineRoot(): string {
    return machineRoot(this.#context.execRoot);
  }

  /**
   * @param since when the request for it came in, by the clock of `performance.now()`
   * @param from the checkpoint it is to go on from
   * @throws {NotModified} it runs already
   * @throws {Conflict} it is paused or being removed
   * @throws {InvalidParameter} its command cannot be executed
   */
  start(
    container: Container,
    since?: number,
    from?: CheckpointPlace,
  ): Promise<void> {
    const trace = this.#context.traces.begin(container, since);
    container.cancelRestart?.();
    return container.exclusive(() =>
      this.#starting.start(container, trace, from),
    );
  }

  /**
   * Asks the process to end, and makes it end after a while.
   * @throws {NotModified} it does not run
   */
  stop(container: Container, options: StopOptions): Promise<void> {
    return this.#stopping.stop(container, options);
  }

  /**
   * Sends a signal to the container's process; with SIGKILL, waits for its end.
   * @throws {Conflict} it does not run
   */
  kill(container: Container, signal: string): Promise<void> {
    return this.#stopping.kill(container, signal);
  }

  /** Stop, if it runs, and start. */
  async restart(container: Container, options: StopOptions): Promise<void> {
    container.restarting = true;
    try {
      await this.stop(container, options);
    } catch (error) {
      if (!(error instanceof NotModified)) throw error;
    } finally {
      container.restarting = false;
    }
    await this.start(container);
    this.#context.tell(container, "restart");
  }

  /** @throws {Conflict} it does not run, or is paused already */
  pause(container: Container): Promise<void> {
    return this.#pausing.pause(container);
  }

  /** @throws {SystemError} it is not paused; Docker answers 500 here */
  unpause(container: Container): Promise<void> {
    return this.#pausing.unpause(container);
  }

  /** @throws {Conflict} it does not run */
  async resize(
    container: Container,
    rows: number,
    columns: number,
  ): Promise<void> {
    if (!container.isRunning || !container.machine) {
      throw notRunning(container);
    }
    await container.machine.agent.request("resize", {
      process: INIT_PROCESS,
      rows,
      columns,
    });
    this.#context.tell(container, "resize", {
      height: String(rows),
      width: String(columns),
    });
  }

  /** Takes over the machine of a container that an earlier daemon started; see `restore.ts`. */
  adopt(container: Container, machine: Machine): Promise<void> {
    return this.#starting.adopt(container, machine);
  }

  /** The same for a machine that does not answer now: it is taken over when it does. */
  adoptLater(container: Container, machine: SilentMachine): Promise<void> {
    return this.#starting.adoptLater(container, machine);
  }

  /** The machine of a container that was running is gone, and nobody saw how. */
  lost(container: Container): Promise<void> {
    return this.#ending.lost(container);
  }

  /** Ends what a killed daemon left of a machine whose container had ended. */
  finishTearDown(container: Container, machine: Machine | undefined): void {
    tearDown(container, machine, true, this.#context);
  }
}
