/** The start of a run: a machine, the container's process in it, and the booking of both. */
import { INIT_PROCESS } from "../../../protocol/index.js";
import { Conflict, NotModified, SystemError } from "../../errors.js";
import { faultPoint } from "../../fault.js";
import type { Machine } from "../../hypervisor/index.js";
import { startFromCheckpoint } from "../checkpoint/start.js";
import {
  type Checkpoint,
  type CheckpointPlace,
  openCheckpoint,
} from "../checkpoint/store.js";
import type { Container } from "../container.js";
import { timestamp } from "../log/json-file.js";
import { initSpawn, setupOf } from "../machine-spec.js";
import { startMachine, type StartedMachine } from "../machine-start.js";
import { type Mounts, prepareMounts } from "../mounts/start.js";
import type { SilentMachine } from "../silent-machine.js";
import { startError } from "../start-error.js";
import type { StartTrace } from "../start-trace.js";
import { setRecordedLimits } from "../update.js";
import type { RunContext } from "./context.js";
import type { Ending } from "./ending.js";
import { freeze } from "./pausing.js";
import { machineDirectory, tearDown } from "./tear-down.js";
import { watchMachine } from "./watch.js";
import { ANSWER_LIMIT, answerWithin, within } from "./within.js";

/** How long a guest may take to forget a process that has ended, in ms. */
const RELEASE_LIMIT = 2000;

/**
 * The same for a setup that fills volumes with what the image has: gigabytes through the share server,
 * under emulation, and nobody but the guest knows how far it is.
 */
const FILL_LIMIT = 30 * 60_000;

export class Starting {
  readonly #context: RunContext;
  readonly #ending: Ending;

  constructor(context: RunContext, ending: Ending) {
    this.#context = context;
    this.#ending = ending;
  }

  /**
   * Called in the container's turn.
   * @throws {NotModified} it runs already
   * @throws {Conflict} it is paused or being removed
   * @throws {InvalidParameter} its command cannot be executed
   * @param from the checkpoint it is to go on from
   * @throws {NotFound} there is no such checkpoint
   * @throws {SystemError} its machine did not come up, or its guest does not answer
   */
  async start(
    container: Container,
    trace: StartTrace,
    from?: CheckpointPlace,
  ): Promise<void> {
    const { state } = container.record;
    if (state.status === "paused") {
      throw new Conflict(
        "cannot start a paused container, try unpause instead",
      );
    }
    if (state.status === "running") throw new NotModified("already started");
    if (state.status === "removing" || state.status === "dead") {
      throw new Conflict(
        "container is marked for removal and cannot be started",
      );
    }
    const checkpoint = from && (await openCheckpoint(container, from));
    await trace.span(
      "wait",
      container.teardown.then(() => container.endOffline(false)),
    );
    state.manuallyStopped = false;
    const { traces } = this.#context;
    traces.running(container, trace);
    try {
      if (checkpoint) await this.#goOn(container, trace, checkpoint);
      else await this.#boot(container, trace);
      traces.ended(container, trace);
    } catch (error) {
      traces.ended(container, trace, error as Error);
      await this.#ending.startFailed(container, error as Error);
      throw startError(error as Error);
    }
  }

  async #boot(container: Container, trace: StartTrace): Promise<void> {
    const mounts = await prepareMounts(container.record, this.#context.volumes);
    try {
      await this.#bootWith(container, trace, mounts);
    } finally {
      mounts.release();
    }
  }

  async #bootWith(
    container: Container,
    trace: StartTrace,
    mounts: Mounts,
  ): Promise<void> {
    const directory = machineDirectory(this.#context.execRoot, container);
    const started = await startMachine(
      container,
      directory,
      mounts.shares,
      this.#context,
      trace,
    );
    await this.#runIn(started, container, trace, mounts);
  }

  async #runIn(
    { machine, doHostsPart }: StartedMachine,
    container: Container,
    trace: StartTrace,
    mounts: Mounts,
  ): Promise<void> {
    const { record } = container;
    faultPoint("start.launched");
    container.machine = machine;
    container.nextProcess = INIT_PROCESS + 1;
    container.lastUsage = undefined;
    record.machine = machine.record;
    const startedAt = timestamp();
    record.run = { startedAt };
    this.#watch(container, machine);
    container.stdio.connectOutput(machine.agent, INIT_PROCESS);
    const directory = machineDirectory(this.#context.execRoot, container);
    await trace.span("shares", mounts.serve(machine.shareSocket, directory));
    faultPoint("start.greeted");
    const fills = mounts.shares.some(({ populate }) => populate);
    const setup = trace.setup(() =>
      mounts.filledBy(
        answerWithin(
          machine.agent.request(
            "setup",
            setupOf(record, mounts.shares, machine.seeded),
          ),
          "setup",
          fills ? FILL_LIMIT : ANSWER_LIMIT,
        ),
      ),
    );
    const { recordable, ready } = doHostsPart();
    // A daemon killed from here on finds the machine again.
    const saved = recordable
      .then(() => container.saveForNow())
      .then(() => faultPoint("start.recorded"));
    saved.catch(() => undefined);
    const spawn = ready.then(() => {
      const started = machine.agent.request("spawn", initSpawn(record));
      container.stdio.connectInput(
        record.config.OpenStdin ? machine.agent.input(INIT_PROCESS) : undefined,
      );
      return started;
    });
    // Heard of by way of the setup when that fails first.
    spawn.catch(() => undefined);
    const spawned = Promise.all([setup, ready]).then(() =>
      answerWithin(spawn, "spawn", ANSWER_LIMIT),
    );
    const requests = Promise.all([setup, trace.after(setup, "exec", spawned)]);
    try {
      await Promise.all([requests, trace.span("record", saved)]);
    } catch (error) {
      // What is under way comes to its end before it is undone.
      await Promise.allSettled([ready]);
      throw error;
    }
    faultPoint("start.spawned");
    record.state.startedAt = startedAt;
    this.#running(container);
    // Not waited for: the record says that a run was begun, and the machine knows the rest.
    void this.#book(container);
  }

  async #book(container: Container): Promise<void> {
    try {
      await container.save();
      faultPoint("start.booked");
    } catch (error) {
      this.#context.log.error(
        { err: error, container: container.id },
        "cannot book the start of a container",
      );
    }
  }

  /** The run that a checkpoint was made of goes on. */
  async #goOn(
    container: Container,
    trace: StartTrace,
    checkpoint: Checkpoint,
  ): Promise<void> {
    const { record } = container;
    const directory = machineDirectory(this.#context.execRoot, container);
    const machine = await trace.machine(
      startFromCheckpoint(container, checkpoint, directory, this.#context),
    );
    container.lastUsage = undefined;
    record.machine = machine.record;
    const { offsets } = checkpoint.record;
    record.run = { startedAt: timestamp(), offsets };
    await container.save();
    await answerWithin(this.adopt(container, machine), "hello", ANSWER_LIMIT);
    if (!container.isRunning) {
      throw new SystemError(
        `checkpoint ${checkpoint.name} has no process of the container`,
      );
    }
  }

  #running(container: Container): void {
    const { state, machine } = container.record;
    state.status = "running";
    state.error = "";
    state.exitCode = 0;
    state.oomKilled = false;
    state.pid = Number(machine?.["pid"] ?? 0);
    this.#context.tell(container, "start");
    this.#context.health.begin(container);
  }

  /** Takes over the machine of a container that an earlier daemon started. */
  async adopt(container: Container, machine: Machine): Promise<void> {
    const { record } = container;
    container.machine = machine;
    this.#watch(container, machine);
    // A daemon that was killed while it made a checkpoint left the machine standing still.
    if (record.state.status === "running") await machine.resume();
    const { hello } = machine.agent;
    this.#tellSilence(container, hello);
    const { processes } = await hello;
    const own = processes.find((one) => one.process === INIT_PROCESS);
    if (!own) {
      // The daemon was killed in the middle of a start, which then did not happen.
      tearDown(container, machine, false, this.#context);
      await container.save();
      return;
    }
    container.nextProcess =
      Math.max(...processes.map((one) => one.process)) + 1;
    const offsets = await container.loggedOffsets(own);
    await container.log.begin(offsets);
    container.stdio.connectOutput(machine.agent, INIT_PROCESS, offsets);
    container.stdio.connectInput(
      record.config.OpenStdin && !own.exit
        ? machine.agent.input(INIT_PROCESS, own.stdinReceived)
        : undefined,
    );
    if (!container.isRunning) {
      // Killed between the start of the process and the booking of it.
      record.state.startedAt = record.run?.startedAt ?? timestamp();
      this.#running(container);
    } else this.#context.health.resume(container);
    await container.save();
    if (record.state.status === "running") {
      // It was brought back from a checkpoint, or the daemon was killed while it made one.
      await freeze(machine, false);
      await this.#setLimits(container);
    }
    for (const { process, exit } of processes) {
      if (process !== INIT_PROCESS) {
        // Whoever waited for it went with the daemon before.
        const request = machine.agent.request("release", { process });
        if (exit) {
          await within(
            request.catch(() => undefined),
            RELEASE_LIMIT,
          );
        } else request.catch(() => undefined);
      }
    }
    if (own.exit) this.#ending.processEnded(container, machine, own.exit);
  }

  async #setLimits(container: Container): Promise<void> {
    try {
      await setRecordedLimits(container);
    } catch (error) {
      this.#context.log.warn(
        { err: error, container: container.id },
        "the limits of a container that was taken over cannot be set",
      );
    }
  }

  /** A guest that was taken over and never answers is its container's own: the log says so, and it can be stopped. */
  #tellSilence(container: Container, hello: Promise<unknown>): void {
    if (container.record.state.status === "paused") return;
    const answered = within(
      hello.catch(() => undefined),
      ANSWER_LIMIT,
    );
    void answered.then((inTime) => {
      if (inTime || this.#ending.closed) return;
      this.#context.log.error(
        { container: container.id },
        `the guest of a running container has not answered for ${ANSWER_LIMIT / 1000} s: it is taken over when it does, and can be stopped`,
      );
    });
  }

  /** Takes over a machine that does not answer now when it does, or books that it has ended. */
  async adoptLater(container: Container, silent: SilentMachine): Promise<void> {
    const { log } = this.#context;
    container.silent = silent;
    log.warn(
      { container: container.id },
      "the machine of a running container does not answer: it is taken over when it does",
    );
    let machine: Machine | undefined;
    try {
      machine = await silent.answer(() => this.#ending.closed);
    } finally {
      container.silent = undefined;
    }
    if (this.#ending.closed) {
      await machine?.detach();
    } else if (machine) {
      log.info({ container: container.id }, "the machine answers now");
      await this.adopt(container, machine);
    } else {
      await container.exclusive(() =>
        this.#ending.lost(
          container,
          "the container's machine did not answer to the daemon that found it, and has ended",
        ),
      );
    }
  }

  #watch(container: Container, machine: Machine): void {
    watchMachine(container, machine, this.#ending, this.#context);
  }
}
