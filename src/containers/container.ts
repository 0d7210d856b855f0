/** One container in memory: its record, its output, and the machine while it runs. */
import path from "node:path";
import type { Logger } from "pino";
import { INIT_PROCESS, type ProcessState } from "../../protocol/index.js";
import type { Machine } from "../hypervisor/index.js";
import type { MachineFiles } from "./machine-files.js";
import type { OfflineMachine } from "./offline-machine.js";
import { JsonFileLog, type StreamName } from "./log/json-file.js";
import { lastOffsets } from "./log/reader.js";
import { logOptions } from "./log/options.js";
import { type ContainerRecord, NEVER } from "./record.js";
import type { StartTrace } from "./start-trace.js";
import { Stdio } from "./stdio.js";
import type { SilentMachine } from "./silent-machine.js";
import type { ContainerStore } from "./store.js";
import type { UsageSample } from "./usage.js";

export type WaitCondition = "not-running" | "next-exit" | "removed";

export class Container {
  readonly record: ContainerRecord;
  readonly directory: string;
  readonly log: JsonFileLog;
  /** The streams of the run that is, or is to come. */
  stdio: Stdio;
  machine: Machine | undefined;
  /** Of the last start that this daemon made. */
  startTrace: StartTrace | undefined;
  /** Work on its files in that machine. */
  files: MachineFiles | undefined;
  /** The machine that stands in for it while somebody wants its files and it does not run. */
  offline: OfflineMachine | undefined;
  /** Resolves when the machine of the last run is gone and its disks are free again. */
  teardown: Promise<void> = Promise.resolve();
  /** Resolves when that machine does nothing any more, and nobody is to find the container by its networks. */
  letGo: Promise<void> = Promise.resolve();
  /** Calls off a restart that waits for its time. */
  cancelRestart: (() => void) | undefined;
  /** How often in a row it was restarted after a short life; sets the wait before the next time. */
  quickRestarts = 0;
  /** A restart by hand is under way: --rm does not apply to the stop in it. */
  restarting = false;
  /** What whoever made it is to be told. */
  readonly warnings: string[] = [];
  /** Number of the next exec in the machine that runs. */
  nextProcess = INIT_PROCESS + 1;

  /** Its machine runs and does not answer; the daemon that found it so is new. */
  silent: SilentMachine | undefined;

  /** What it took when that was asked last. */
  lastUsage: UsageSample | undefined;

  #diskIsBlank = false;

  readonly #store: ContainerStore;
  readonly #exitWaiters = new Set<(exitCode: number) => void>();
  readonly #removalWaiters = new Set<(exitCode: number) => void>();
  #turn: Promise<unknown> = Promise.resolve();
  #saving: Promise<void> = Promise.resolve();
  #removed = false;

  constructor(record: ContainerRecord, store: ContainerStore, log: Logger) {
    this.record = record;
    this.#store = store;
    this.directory = store.directory(record.id);
    const report = (error: Error) => {
      log.error({ err: error, container: record.id }, "cannot write the log");
    };
    this.log = new JsonFileLog(
      path.join(this.directory, `${record.id}-json.log`),
      { ...logOptions(record.hostConfig), onError: report },
    );
    this.stdio = this.#newStdio();
  }

  get id(): string {
    return this.record.id;
  }

  get isRunning(): boolean {
    const { status } = this.record.state;
    return status === "running" || status === "paused";
  }

  get writableDisk(): string {
    return path.join(this.directory, "writable.img");
  }

  /** Its disk was made, and no machine has had it. Forgotten when the daemon ends. */
  blankDiskMade(): void {
    this.#diskIsBlank = true;
  }

  /** Whether no machine has had its disk; to be called before one gets it. */
  takeBlankDisk(): boolean {
    const blank = this.#diskIsBlank;
    this.#diskIsBlank = false;
    return blank;
  }

  /** The streams a process of this container has. */
  get streams(): readonly StreamName[] {
    return this.record.config.Tty ? ["stdout"] : ["stdout", "stderr"];
  }

  /** Fresh streams for the next run. */
  renewStdio(): void {
    this.stdio = this.#newStdio();
  }

  #newStdio(): Stdio {
    const keep = this.record.hostConfig.LogConfig?.Type !== "none";
    return new Stdio(this.streams, keep ? this.log : undefined);
  }

  /** Writes the record to disk. */
  save(): Promise<void> {
    return this.write(() => this.#store.save(this.record));
  }

  /**
   * The same for what another daemon on this host is to find, and is of no use any more when the host was down: after
   * a power failure the record may be the one before.
   */
  saveForNow(): Promise<void> {
    return this.write(() =>
      this.#store.save(this.record, { durable: "either" }),
    );
  }

  /**
   * Writes to the container's folder, one call after the other; does nothing once the container is being
   * removed.
   */
  write(action: () => Promise<void>): Promise<void> {
    const written = this.#saving.then(() =>
      this.#removed ? undefined : action(),
    );
    this.#saving = written.catch(() => undefined);
    return written;
  }

  /** How far the log of the run that is under way goes; for `none`, what was read so far is past. */
  async loggedOffsets(process: ProcessState) {
    const { hostConfig, run, state } = this.record;
    if (hostConfig.LogConfig?.Type === "none") {
      return {
        stdout: process.stdout.produced,
        stderr: process.stderr.produced,
      };
    }
    return lastOffsets(
      this.log,
      run?.startedAt ?? state.startedAt,
      run?.offsets,
    );
  }

  /** Deletes all files of the container; the record first. */
  async deleteFiles(): Promise<void> {
    this.#removed = true;
    await this.#saving;
    await this.log.discard();
    await this.#store.remove(this.id);
  }

  /**
   * Ends the machine that stands in for it: its disks are free then. To be called in its turn.
   * @param now whether those who use it are cut off
   */
  async endOffline(now: boolean): Promise<void> {
    const { offline } = this;
    if (!offline) return;
    await offline.end(now);
    if (this.offline === offline) this.offline = undefined;
  }

  /** Runs state changes (start, remove, rename …) one at a time. */
  exclusive<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(change);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  /** Resolves with the exit code when `condition` holds; see `POST /containers/{id}/wait`. */
  wait(condition: WaitCondition, signal: AbortSignal): Promise<number> {
    const { status } = this.record.state;
    const ended = !this.isRunning && status !== "restarting";
    if (condition === "not-running" && ended) {
      return Promise.resolve(this.exitCode);
    }
    const waiters =
      condition === "removed" ? this.#removalWaiters : this.#exitWaiters;
    return new Promise((resolve) => {
      waiters.add(resolve);
      signal.addEventListener("abort", () => waiters.delete(resolve));
    });
  }

  /** The exit code of the last run. */
  get exitCode(): number {
    return this.record.state.exitCode;
  }

  notifyExit(): void {
    settle(this.#exitWaiters, this.exitCode);
  }

  notifyRemoved(): void {
    settle(this.#exitWaiters, this.exitCode);
    settle(this.#removalWaiters, this.exitCode);
  }
}

export function initialState(): ContainerRecord["state"] {
  return {
    status: "created",
    pid: 0,
    exitCode: 0,
    error: "",
    oomKilled: false,
    startedAt: NEVER,
    finishedAt: NEVER,
    manuallyStopped: false,
  };
}

function settle(
  waiters: Set<(exitCode: number) => void>,
  exitCode: number,
): void {
  for (const resolve of [...waiters]) resolve(exitCode);
  waiters.clear();
}
