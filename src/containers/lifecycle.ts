/**
 * What happens to a container between create and remove: start, the end of its process, restarts by
 * policy, stop, kill, pause. Docker's state machine, with a machine in the place of a process.
 */
import { rm } from "node:fs/promises";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import { INIT_PROCESS, type ProcessExit } from "../../protocol/index.js";
import { Conflict, NotModified, SystemError } from "../errors.js";
import { faultPoint } from "../fault.js";
import type { Hypervisor, Machine, MachineExit } from "../hypervisor/index.js";
import type { ImageSource } from "../images/index.js";
import type { NetworkService } from "../networks/index.js";
import type { Volumes } from "../volumes/index.js";
import type { Container } from "./container.js";
import type { Tell } from "./container-events.js";
import { type Execs, notRunning } from "./execs.js";
import type { HealthMonitors } from "./health.js";
import { timestamp } from "./log/json-file.js";
import { MachineFiles } from "./machine-files.js";
import { initSpawn, type MachineDefaults, setupOf } from "./machine-spec.js";
import { startMachine } from "./machine-start.js";
import { type Mounts, prepareMounts, tellMounts } from "./mounts/start.js";
import { restartDelay, restartsAfterExit } from "./restart-policy.js";
import { signalNumber } from "./signals.js";
import { exitCodeOf, startError } from "./start-error.js";
import type { StartTrace } from "./start-trace.js";
import type { StartTraces } from "./start-traces.js";
import { sampleUsage } from "./usage.js";

export interface LifecycleOptions {
  /** Folder for the machines' sockets; short, since a socket's path may have 107 bytes. */
  execRoot: string;
  defaults: MachineDefaults;
  images: ImageSource;
  hypervisor: Hypervisor;
  networks: NetworkService;
  volumes: Volumes;
  tell: Tell;
  log: Logger;
  execs: Execs;
  health: HealthMonitors;
  traces: StartTraces;
  /** Removes a container that ended (--rm). */
  remove: (container: Container) => Promise<void>;
}

const SIGKILL = 9;
const DEFAULT_STOP_TIMEOUT = 10;
/** How long a guest may take to flush its disks before its machine is ended, in ms. */
const SHUTDOWN_LIMIT = 10_000;
/** How long a guest may take to report a death after SIGKILL before its machine is ended, in ms. */
const KILL_LIMIT = 10_000;
/** How long a guest may take to freeze its processes before its machine stands still all the same, in ms. */
const FREEZE_LIMIT = 2000;
/** How long a guest may take to take a SIGKILL; one that does not hangs, in ms. */
const ANSWER_LIMIT = 5_000;
/** How long after its channel the end of a machine may become known, in ms. */
const DEATH_NEWS_LIMIT = 1000;
/** A run of this many ms makes the next restart prompt again. */
const LONG_RUN = 10_000;
/** What Docker books where nobody saw a container end. */
const UNKNOWN_EXIT = 255;

export class Lifecycle {
  readonly #options: LifecycleOptions;
  #closing = false;

  constructor(options: LifecycleOptions) {
    this.#options = options;
  }

  /** The daemon goes away: what ends from now on is for the next one to find. */
  close(): void {
    this.#closing = true;
    this.#options.health.close();
  }

  /**
   * @param since when the request for it came in, by the clock of `performance.now()`
   * @throws {NotModified} it runs already
   * @throws {Conflict} it is paused or being removed
   * @throws {InvalidParameter} its command cannot be executed
   */
  start(container: Container, since?: number): Promise<void> {
    const trace = this.#options.traces.begin(container, since);
    container.cancelRestart?.();
    return container.exclusive(() => this.#start(container, trace));
  }

  async #start(container: Container, trace: StartTrace): Promise<void> {
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
    await trace.span(
      "wait",
      container.teardown.then(() => container.endOffline(false)),
    );
    state.manuallyStopped = false;
    const { traces } = this.#options;
    traces.running(container, trace);
    try {
      await this.#boot(container, trace);
      traces.ended(container, trace);
    } catch (error) {
      traces.ended(container, trace, error as Error);
      await this.#startFailed(container, error as Error);
      throw startError(error as Error);
    }
  }

  async #boot(container: Container, trace: StartTrace): Promise<void> {
    const mounts = await prepareMounts(container.record, this.#options.volumes);
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
    const { record } = container;
    const directory = this.#machineDirectory(container);
    const machine = await startMachine(
      container,
      directory,
      this.#options,
      trace,
    );
    faultPoint("start.launched");
    container.machine = machine;
    container.nextProcess = INIT_PROCESS + 1;
    container.lastUsage = undefined;
    record.machine = machine.record;
    const startedAt = timestamp();
    record.run = { startedAt };
    // On disk while the guest works: a daemon killed from here on finds the machine again.
    const saved = container.save().then(() => faultPoint("start.recorded"));
    this.#watch(container, machine);
    container.stdio.connectOutput(machine.agent, INIT_PROCESS);
    await trace.span("shares", mounts.serve(machine.shareSocket, directory));
    faultPoint("start.greeted");
    const setup = trace.setup(
      mounts.filledBy(
        machine.agent.request("setup", setupOf(record, mounts.shares)),
      ),
    );
    const spawn = machine.agent.request("spawn", initSpawn(record));
    const requests = Promise.all([setup, trace.after(setup, "exec", spawn)]);
    container.stdio.connectInput(
      record.config.OpenStdin ? machine.agent.input(INIT_PROCESS) : undefined,
    );
    await Promise.all([requests, trace.span("record", saved)]);
    faultPoint("start.spawned");
    record.state.startedAt = startedAt;
    this.#running(container);
    await container.save();
    faultPoint("start.booked");
  }

  #running(container: Container): void {
    const { state, machine } = container.record;
    state.status = "running";
    state.error = "";
    state.exitCode = 0;
    state.oomKilled = false;
    state.pid = Number(machine?.["pid"] ?? 0);
    this.#options.tell(container, "start");
    this.#options.health.begin(container);
  }

  /** Below it each machine has a folder for its sockets. */
  get machineRoot(): string {
    return path.join(this.#options.execRoot, "m");
  }

  /** The ID is cut, for the sake of the path's length. */
  #machineDirectory(container: Container): string {
    return path.join(this.machineRoot, container.id.slice(0, 16));
  }

  async #startFailed(container: Container, error: Error): Promise<void> {
    const { record, machine } = container;
    record.state.pid = 0;
    record.state.exitCode = exitCodeOf(error);
    record.state.error = startError(error).message;
    record.state.finishedAt = timestamp();
    await this.#endStreams(container);
    this.#tearDown(container, machine, false);
    await container.save();
    container.notifyExit();
    if (record.hostConfig.AutoRemove) void this.#autoRemove(container);
  }

  /** Finds the machine of a container that an earlier daemon started; see {@link Restore}. */
  async adopt(container: Container, machine: Machine): Promise<void> {
    const { record } = container;
    container.machine = machine;
    this.#watch(container, machine);
    const hello = await machine.agent.hello;
    const own = hello.processes.find((one) => one.process === INIT_PROCESS);
    if (!own) {
      // The daemon was killed in the middle of a start, which then did not happen.
      this.#tearDown(container, machine, false);
      await container.save();
      return;
    }
    container.nextProcess =
      Math.max(...hello.processes.map((one) => one.process)) + 1;
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
    } else this.#options.health.resume(container);
    await container.save();
    for (const { process, exit } of hello.processes) {
      if (process !== INIT_PROCESS) {
        // Whoever waited for it went with the daemon before.
        const request = machine.agent.request("release", { process });
        if (exit) await request.catch(() => undefined);
      }
    }
    if (own.exit) this.#processEnded(container, machine, own.exit);
  }

  /** The machine of a container that was running is gone, and nobody saw how. */
  async lost(container: Container): Promise<void> {
    await this.#finish(container, undefined, {
      code: UNKNOWN_EXIT,
      oomKilled: false,
      finishedAt: timestamp(),
      error: "the container's machine ended while the daemon was not running",
    });
  }

  /** Ends what a killed daemon left of a machine whose container had ended. */
  finishTearDown(container: Container, machine: Machine | undefined): void {
    this.#tearDown(container, machine, true);
  }

  #watch(container: Container, machine: Machine): void {
    const { log, execs } = this.#options;
    const files = new MachineFiles(machine, () => container.nextProcess++);
    container.files = files;
    machine.agent.onEvent((event) => {
      if (event.event === "exit" && event.process === INIT_PROCESS) {
        this.#processEnded(container, machine, event.exit);
      } else if (event.event === "exit") {
        if (files.exited(event.process, event.exit)) return;
        void execs.exited(container, event.process, event.exit);
      } else if (event.event === "oom") {
        this.#options.tell(container, "oom");
      } else if (event.event === "log") {
        log[event.level](
          { container: container.id, guest: event.message.slice(0, 1000) },
          "the agent says",
        );
      }
    });
    machine.onTrouble((trouble) => {
      log.warn({ container: container.id }, trouble);
    });
    void machine.exited.then((exit) => {
      this.#machineGone(container, machine, exit);
    });
    void machine.agent.closed.then((reason) => {
      if (container.machine !== machine || this.#closing) return;
      if (!container.isRunning) return;
      log.warn({ container: container.id, reason }, "agent channel closed");
      // Without its channel nobody can say what the container does. When the machine has died, that is
      // the reason, and is about to be known.
      void within(machine.exited, DEATH_NEWS_LIMIT).then(() =>
        machine.kill(reason),
      );
    });
  }

  #processEnded(
    container: Container,
    machine: Machine,
    exit: ProcessExit,
  ): void {
    const { stdio } = container;
    void (async () => {
      await Promise.race([stdio.drained, machine.exited]);
      await container.exclusive(async () => {
        if (container.machine !== machine || !container.isRunning) return;
        await this.#finish(container, machine, {
          code: exit.code,
          oomKilled: exit.oomKilled,
          finishedAt: new Date(exit.at).toISOString(),
          error: "",
        });
      });
    })().catch((error: unknown) => {
      this.#options.log.error(
        { err: error, container: container.id },
        "cannot book the end of a container",
      );
    });
  }

  #machineGone(
    container: Container,
    machine: Machine,
    exit: MachineExit,
  ): void {
    void container
      .exclusive(async () => {
        if (container.machine !== machine || !container.isRunning) return;
        await this.#finish(container, machine, {
          code: 128 + SIGKILL,
          oomKilled: false,
          finishedAt: timestamp(),
          error: `the container's machine ended: ${exit.reason}`,
        });
      })
      .catch((error: unknown) => {
        this.#options.log.error(
          { err: error, container: container.id },
          "cannot book the end of a machine",
        );
      });
  }

  /** Books the end of a run. Called in the container's turn. */
  async #finish(
    container: Container,
    machine: Machine | undefined,
    end: {
      code: number;
      oomKilled: boolean;
      finishedAt: string;
      error: string;
    },
  ): Promise<void> {
    if (this.#closing) return;
    faultPoint("end.unbooked");
    const { record } = container;
    const { state } = record;
    const ranFor = Date.now() - Date.parse(state.startedAt);
    container.quickRestarts =
      ranFor > LONG_RUN ? 0 : container.quickRestarts + 1;
    state.status = "exited";
    state.pid = 0;
    state.exitCode = end.code;
    state.oomKilled = end.oomKilled;
    state.error = end.error;
    state.finishedAt = end.finishedAt;
    this.#options.health.stop(container);
    const again = !container.restarting && restartsAfterExit(record);
    const remove = record.hostConfig.AutoRemove && !container.restarting;
    await this.#endStreams(container);
    await this.#options.execs.machineEnded(container);
    // Who is told of the end may ask for the same ports, or for the container's name, at once.
    await this.#options.networks.withdraw(record.id);
    this.#options.tell(container, "die", { exitCode: String(end.code) });
    // What is about to be deleted need not be flushed.
    this.#tearDown(container, machine, !remove);
    if (again) this.#scheduleRestart(container);
    await container.save();
    faultPoint("end.booked");
    if (!again) container.notifyExit();
    if (remove) void this.#autoRemove(container);
  }

  async #endStreams(container: Container): Promise<void> {
    const { stdio } = container;
    container.renewStdio();
    await stdio.finish();
    await container.log.close();
  }

  async #autoRemove(container: Container): Promise<void> {
    try {
      await this.#options.remove(container);
    } catch (error) {
      this.#options.log.error(
        { err: error, container: container.id },
        "cannot remove a container that ended",
      );
    }
  }

  /** Restarts by policy, after a while. */
  #scheduleRestart(container: Container): void {
    const { record } = container;
    record.state.status = "restarting";
    const timer = setTimeout(
      () => {
        container.cancelRestart = undefined;
        record.restartCount++;
        void this.#restartNow(container);
      },
      restartDelay(container.quickRestarts - 1),
    );
    container.cancelRestart = () => {
      clearTimeout(timer);
      container.cancelRestart = undefined;
      record.state.status = "exited";
      container.notifyExit();
    };
  }

  async #restartNow(container: Container): Promise<void> {
    try {
      await container.exclusive(async () => {
        if (container.record.state.status !== "restarting") return;
        await this.#start(container, this.#options.traces.begin(container));
      });
    } catch (error) {
      this.#options.log.error(
        { err: error, container: container.id },
        "restart by policy failed",
      );
    }
  }

  /** Gives back what a run needed. The next start, and the removal, wait for it. */
  #tearDown(
    container: Container,
    machine: Machine | undefined,
    orderly: boolean,
  ): void {
    const { networks, volumes, log } = this.#options;
    const { record } = container;
    container.teardown = (async () => {
      if (machine) {
        // What the guest has not written yet may be a volume's.
        if (orderly || record.mounts?.length) await shutdown(machine);
        await machine.kill();
        await machine.exited;
        tellMounts(record, volumes, "unmount");
      }
      faultPoint("teardown.machine-gone");
      container.machine = undefined;
      container.files = undefined;
      await networks.detach(record.id);
      for (const tap of record.taps ?? []) networks.discardTap(tap);
      faultPoint("teardown.detached");
      await rm(this.#machineDirectory(container), {
        recursive: true,
        force: true,
      });
      faultPoint("teardown.folder-gone");
      delete record.machine;
      delete record.run;
      delete record.taps;
      record.endpoints = [];
      delete record.ports;
      await container.save();
    })().catch((error: unknown) => {
      log.error(
        { err: error, container: record.id },
        "cannot take down a machine",
      );
    });
  }

  /**
   * Asks the process to end, and makes it end after `timeout` seconds (-1: never).
   * @throws {NotModified} it does not run
   */
  async stop(
    container: Container,
    options: { timeout?: number; signal?: string },
  ): Promise<void> {
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
    if (state.status === "paused") await this.unpause(container);
    const ended = this.#ended(container);
    // A guest that hangs does not answer: the time runs all the same.
    void this.#signal(container, signal).then(() =>
      faultPoint("stop.signalled"),
    );
    if (!(await within(ended, seconds < 0 ? Infinity : seconds * 1000))) {
      await this.#forceEnd(container, ended);
    }
    this.#options.tell(container, "stop");
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
    if (state.status === "paused") await this.unpause(container);
    await this.#forceEnd(container, this.#ended(container));
  }

  /** Resolves when the run that is under way has been booked as ended. */
  #ended(container: Container): Promise<unknown> {
    return container.wait("next-exit", new AbortController().signal);
  }

  /** SIGKILL, and if the guest does not report a death, the end of the machine. */
  async #forceEnd(
    container: Container,
    ended: Promise<unknown>,
  ): Promise<void> {
    container.stdio.hurry();
    const heard = await this.#signal(container, SIGKILL, ANSWER_LIMIT);
    if (heard && (await within(ended, KILL_LIMIT))) return;
    this.#options.log.warn(
      { container: container.id },
      "the guest does not answer: its machine is ended",
    );
    await container.machine?.kill();
    await ended;
  }

  /** @returns whether the guest has answered within `limit` ms */
  async #signal(
    container: Container,
    signal: number,
    limit = KILL_LIMIT,
  ): Promise<boolean> {
    this.#options.tell(container, "kill", { signal: String(signal) });
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

  /** Stop, if it runs, and start. */
  async restart(
    container: Container,
    options: { timeout?: number; signal?: string },
  ): Promise<void> {
    container.restarting = true;
    try {
      await this.stop(container, options);
    } catch (error) {
      if (!(error instanceof NotModified)) throw error;
    } finally {
      container.restarting = false;
    }
    await this.start(container);
    this.#options.tell(container, "restart");
  }

  /** @throws {Conflict} it does not run, or is paused already */
  async pause(container: Container): Promise<void> {
    await container.exclusive(async () => {
      const { state } = container.record;
      if (state.status === "paused") {
        throw new Conflict(`Container ${container.id} is already paused`);
      }
      if (state.status !== "running" || !container.machine) {
        throw notRunning(container);
      }
      this.#options.health.stop(container);
      // A guest that stands still cannot be asked.
      await sampleUsage(container);
      // Its processes stand still also while the machine goes on for the sake of its files.
      await this.#freeze(container.machine, true);
      await container.machine.pause();
      state.status = "paused";
      this.#options.tell(container, "pause");
      await container.save();
    });
  }

  async #freeze(machine: Machine, frozen: boolean): Promise<void> {
    const request = machine.agent.request("freeze", { frozen });
    await within(
      request.catch(() => undefined),
      FREEZE_LIMIT,
    );
  }

  /** @throws {SystemError} it is not paused; Docker answers 500 here */
  async unpause(container: Container): Promise<void> {
    await container.exclusive(async () => {
      const { state } = container.record;
      if (state.status !== "paused" || !container.machine) {
        throw new SystemError(`Container ${container.id} is not paused`);
      }
      await container.machine.resume();
      await this.#freeze(container.machine, false);
      state.status = "running";
      this.#options.tell(container, "unpause");
      this.#options.health.resume(container);
      await container.save();
    });
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
    this.#options.tell(container, "resize", {
      height: String(rows),
      width: String(columns),
    });
  }
}

async function shutdown(machine: Machine): Promise<void> {
  await within(
    Promise.race([
      machine.agent.request("shutdown", {}).catch(() => undefined),
      machine.exited,
    ]),
    SHUTDOWN_LIMIT,
  );
}

/** Whether a promise settles within so many ms. */
async function within(promise: Promise<unknown>, ms: number): Promise<boolean> {
  if (ms === Infinity) {
    await promise;
    return true;
  }
  const timer = new AbortController();
  const late = Symbol("late");
  try {
    const first = await Promise.race([
      promise,
      delay(ms, late, { signal: timer.signal }).catch(() => late),
    ]);
    return first !== late;
  } finally {
    timer.abort();
  }
}
