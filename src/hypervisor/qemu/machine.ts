import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import type { SocketAgentClient } from "../agent/client.js";
import type {
  AgentClient,
  Machine,
  MachineCost,
  MachineExit,
  MachineRecord,
  StartKind,
} from "../index.js";
import { ConsoleTail, panicMessage } from "./console.js";
import { machineSockets } from "./descriptors.js";
import { costOf } from "./process-cost.js";
import type { Furnished } from "./furnishing.js";
import type { QemuProcess } from "./process.js";
import type { ProcessEnd } from "./process-identity.js";
import { lastWords } from "./process.js";
import type { QmpClient, QmpEvent } from "./qmp.js";
import { saveMachine } from "./save.js";

/** How long a machine stands still for a disk that is full before it is tried again, in ms. */
const RETRY_MS = 1000;
/** The same trouble is told again after so many ms. */
const TELL_AGAIN_MS = 60_000;
/** How long a machine that was roused waits for a container, in ms: a client starts what it has just made. */
const MOMENT_MS = 1000;

const statusShape = z.object({ status: z.string() });

/** What a machine is made of once its process runs and its sockets are connected. */
export interface MachineParts {
  record: MachineRecord;
  directory: string;
  process: QemuProcess;
  qmp: QmpClient;
  agent: SocketAgentClient;
  spans: { name: string; ms: number }[];
}

/** One QEMU process and the connections to it; a container's, or nobody's yet. */
export class QemuMachine implements Machine {
  readonly record: MachineRecord;
  readonly exited: Promise<MachineExit>;
  readonly spans: { name: string; ms: number }[];
  startKind: StartKind = "cold";
  seeded = false;
  fallback: string | undefined;
  /** Of a machine of the pool, until it is handed over. */
  furnished: Furnished | undefined;
  settle: () => Promise<void> = () => Promise.resolve();
  readonly qmp: QmpClient;
  readonly #process: QemuProcess;
  #directory: string;
  readonly #agent: SocketAgentClient;
  readonly #console = new ConsoleTail();
  /** Why the machine is about to end, when that is known before it does. */
  #verdict: MachineExit | undefined;
  readonly #troubleListeners: ((trouble: string) => void)[] = [];
  #toldTrouble = -Infinity;
  #stalled = false;
  #gone = false;
  #ending: Promise<void> | undefined;
  #roused: Promise<void> | undefined;
  #moment: NodeJS.Timeout | undefined;

  constructor(parts: MachineParts) {
    this.record = parts.record;
    this.spans = parts.spans;
    this.#directory = parts.directory;
    this.#process = parts.process;
    this.qmp = parts.qmp;
    this.#agent = parts.agent;
    this.qmp.onEvent((event) => this.#onEvent(event));
    this.exited = parts.process.ended.then((end) => this.#ended(end));
  }

  get directory(): string {
    return this.#directory;
  }

  /** It is the container's from now on, and its folder has been moved. */
  become(id: string, directory: string): void {
    this.#directory = directory;
    Object.assign(this.record, { id, directory });
  }

  get agent(): AgentClient {
    return this.#agent;
  }

  get shareSocket(): string {
    return machineSockets(this.#directory).share;
  }

  onTrouble(listener: (trouble: string) => void): void {
    this.#troubleListeners.push(listener);
  }

  async pause(): Promise<void> {
    await this.qmp.execute("stop");
  }

  async resume(): Promise<void> {
    await this.qmp.execute("cont");
  }

  /** A machine that stands still goes on, and its guest stretches; it stands still again after a moment. */
  rouse(): void {
    if (this.#roused) return;
    this.#roused = this.resume();
    this.#roused
      .then(() => this.agent.request("rouse", {}))
      // Told to who has it go on for good.
      .catch(() => undefined);
    this.#moment = setTimeout(() => {
      this.#roused = undefined;
      void this.pause().catch(() => undefined);
    }, MOMENT_MS).unref();
  }

  /** A machine that stood still, but for a moment perhaps, goes on. */
  async goOn(): Promise<void> {
    clearTimeout(this.#moment);
    await (this.#roused ?? this.resume());
  }

  save(file: string): Promise<MachineRecord> {
    return saveMachine(this, file);
  }

  cost(): Promise<MachineCost | undefined> {
    return costOf(this.#process.identity.pid);
  }

  async kill(because?: string): Promise<void> {
    this.#verdict ??= {
      reason: because ?? "powered off",
      expected: because === undefined,
    };
    await this.#end();
  }

  async console(): Promise<string> {
    if (!this.#gone) {
      await this.#console.read(this.qmp).catch(() => undefined);
    }
    return this.#console.text;
  }

  detach(): Promise<void> {
    this.#agent.close("the daemon has let go of the machine");
    this.qmp.close();
    return Promise.resolve();
  }

  /** Looks whether the guest ended while nobody was connected; to be called after a reattach. */
  async checkStatus(): Promise<void> {
    const { status } = statusShape.parse(
      await this.qmp.execute("query-status"),
    );
    if (status === "shutdown") {
      await this.#guestEnded("the guest shut itself down");
    } else if (status === "io-error") {
      void this.#waitForRoom("a disk's file cannot be written");
    } else if (status === "internal-error" || status === "guest-panicked") {
      await this.#guestEnded(`the hypervisor stopped the guest (${status})`);
    }
  }

  #onEvent({ name, data }: QmpEvent): void {
    if (name === "SHUTDOWN" && data["guest"] === true) {
      const reason =
        data["reason"] === "guest-reset"
          ? "the guest reset itself"
          : "the guest shut itself down";
      this.#guestEnded(reason).catch(() => undefined);
    } else if (name === "BLOCK_IO_ERROR" && data["action"] === "stop") {
      void this.#waitForRoom(String(data["reason"]));
    } else if (name === "STOP") {
      // By our order, because of a shutdown, or because the CPU could not go on.
      this.checkStatus().catch(() => undefined);
    }
  }

  /**
   * QEMU holds a guest whose write the host has no room for, with the write unfinished. It is tried
   * again until it works, so that a full disk of the host costs the guest time and no data.
   */
  async #waitForRoom(reason: string): Promise<void> {
    if (this.#stalled) return;
    this.#stalled = true;
    if (performance.now() - this.#toldTrouble > TELL_AGAIN_MS) {
      this.#toldTrouble = performance.now();
      const trouble = `the machine stands still until its disk can be written: ${reason}`;
      for (const listener of this.#troubleListeners) listener(trouble);
    }
    await sleep(RETRY_MS, undefined, { ref: false });
    this.#stalled = false;
    if (this.#gone || this.#verdict) return;
    try {
      const answer = await this.qmp.execute("query-status");
      // It may have been paused by order meanwhile.
      if (statusShape.parse(answer).status !== "io-error") return;
      await this.qmp.execute("cont");
    } catch {
      // It has ended.
    }
  }

  /** The guest stands still for good: its last words are read, then its process is ended. */
  async #guestEnded(reason: string): Promise<void> {
    if (this.#verdict) return;
    this.#verdict = { reason, expected: false };
    const panic = panicMessage(await this.console());
    if (panic !== undefined) {
      this.#verdict.reason = `guest panicked: ${panic}`;
    }
    await this.#end();
  }

  /** By SIGKILL: what the guest has flushed is the host's already, and QEMU has nothing else to lose. */
  #end(): Promise<void> {
    this.#ending ??= this.#process.kill().then(async () => {
      await this.exited;
    });
    return this.#ending;
  }

  async #ended(end: ProcessEnd): Promise<MachineExit> {
    this.#gone = true;
    this.#agent.close("the machine has ended");
    this.qmp.close();
    if (this.#verdict) return this.#verdict;
    const words = await lastWords(this.#directory);
    const how = end.signal
      ? `QEMU was killed by ${end.signal}`
      : end.code === undefined
        ? "QEMU ended"
        : `QEMU exited with status ${end.code}`;
    return { reason: words ? `${how}: ${words}` : how, expected: false };
  }
}
