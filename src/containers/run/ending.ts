/** The end of a run: how it came about, what is booked, and what comes after it. */
import type { ProcessExit } from "../../../protocol/index.js";
import { faultPoint } from "../../fault.js";
import type { Machine, MachineExit } from "../../hypervisor/index.js";
import type { Container } from "../container.js";
import { timestamp } from "../log/json-file.js";
import { restartsAfterExit } from "../restart-policy.js";
import { SIGKILL } from "../signals.js";
import { exitCodeOf, startError } from "../start-error.js";
import type { RunContext } from "./context.js";
import type { PolicyRestarts } from "./policy-restarts.js";
import { tearDown } from "./tear-down.js";

/**
 * How long a guest may be silent between the end of a process and the end of its streams, in seconds. An
 * honest one goes on sending at once; a host that is short of processors may not let it.
 */
const SILENCE_LIMIT = 10;

/** What Docker books where nobody saw a container end. */
const UNKNOWN_EXIT = 255;

interface RunEnd {
  code: number;
  oomKilled: boolean;
  finishedAt: string;
  error: string;
}

export class Ending {
  readonly #context: RunContext;
  readonly #restarts: PolicyRestarts;
  #closed = false;

  constructor(context: RunContext, restarts: PolicyRestarts) {
    this.#context = context;
    this.#restarts = restarts;
  }

  /** The daemon goes away: what ends from now on is for the next one to find. */
  close(): void {
    this.#closed = true;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The container's process has ended; its last output may be under way. */
  processEnded(
    container: Container,
    machine: Machine,
    exit: ProcessExit,
  ): void {
    const drained = Promise.race([
      this.#streamsEnded(container),
      machine.exited,
    ]);
    this.#book(container, machine, drained, {
      code: exit.code,
      oomKilled: exit.oomKilled,
      finishedAt: new Date(exit.at).toISOString(),
      error: "",
    });
  }

  /** Waits for the last output; a guest that never ends the streams does not keep the run from its end. */
  async #streamsEnded(container: Container): Promise<void> {
    const { stdio, record } = container;
    const ended = await stdio.drainedOrSilent(
      SILENCE_LIMIT,
      () => record.state.status === "paused",
    );
    if (ended) return;
    this.#context.log.warn(
      { container: container.id },
      "the guest has told of the end of the container's process, and does not end its output",
    );
  }

  /** The machine has ended, and nobody heard of an end of the process before. */
  machineGone(container: Container, machine: Machine, exit: MachineExit): void {
    this.#book(container, machine, Promise.resolve(), {
      code: 128 + SIGKILL,
      oomKilled: false,
      finishedAt: timestamp(),
      error: `the container's machine ended: ${exit.reason}`,
    });
  }

  /** The machine of a container that was running is gone, and nobody saw how. */
  async lost(
    container: Container,
    error = "the container's machine ended while the daemon was not running",
  ): Promise<void> {
    await this.#finish(container, undefined, {
      code: UNKNOWN_EXIT,
      oomKilled: false,
      finishedAt: timestamp(),
      error,
    });
  }

  /** A run that did not come about. Called in the container's turn. */
  async startFailed(container: Container, error: Error): Promise<void> {
    const { record, machine } = container;
    record.state.pid = 0;
    record.state.exitCode = exitCodeOf(error);
    record.state.error = startError(error).message;
    record.state.finishedAt = timestamp();
    await endStreams(container);
    tearDown(container, machine, false, this.#context);
    await container.save();
    container.notifyExit();
    if (record.hostConfig.AutoRemove) void this.#autoRemove(container);
  }

  /** Books the end of the run of this machine, unless that has been done. */
  #book(
    container: Container,
    machine: Machine,
    ready: Promise<unknown>,
    end: RunEnd,
  ): void {
    void (async () => {
      await ready;
      await container.exclusive(async () => {
        if (container.machine !== machine || !container.isRunning) return;
        await this.#finish(container, machine, end);
      });
    })().catch((error: unknown) => {
      this.#context.log.error(
        { err: error, container: container.id },
        "cannot book the end of a container",
      );
    });
  }

  /** Books the end of a run. Called in the container's turn. */
  async #finish(
    container: Container,
    machine: Machine | undefined,
    end: RunEnd,
  ): Promise<void> {
    if (this.#closed) return;
    faultPoint("end.unbooked");
    const { health, execs, networks, tell } = this.#context;
    const { record } = container;
    const { state } = record;
    this.#restarts.countRun(
      container,
      Date.now() - Date.parse(state.startedAt),
    );
    state.status = "exited";
    state.pid = 0;
    state.exitCode = end.code;
    state.oomKilled = end.oomKilled;
    state.error = end.error;
    state.finishedAt = end.finishedAt;
    health.stop(container);
    const again = !container.restarting && restartsAfterExit(record);
    const remove = record.hostConfig.AutoRemove && !container.restarting;
    await endStreams(container);
    await execs.machineEnded(container);
    // Who is told of the end may ask for the same ports, or for the container's name, at once.
    await networks.withdraw(record.id);
    tell(container, "die", { exitCode: String(end.code) });
    // What is about to be deleted need not be flushed.
    tearDown(container, machine, !remove, this.#context);
    if (again) this.#restarts.schedule(container);
    // It is removed at once; until then the record says that it runs, and a next daemon removes it likewise.
    if (!remove) await container.save();
    faultPoint("end.booked");
    if (!again) container.notifyExit();
    if (remove) void this.#autoRemove(container);
  }

  async #autoRemove(container: Container): Promise<void> {
    try {
      await this.#context.remove(container);
    } catch (error) {
      this.#context.log.error(
        { err: error, container: container.id },
        "cannot remove a container that ended",
      );
    }
  }
}

async function endStreams(container: Container): Promise<void> {
  const { stdio } = container;
  container.renewStdio();
  await stdio.finish();
  await container.log.close();
}
