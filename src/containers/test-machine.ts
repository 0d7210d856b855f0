/** A machine for unit tests: its guest does what the test says, and notes what it is asked. */
import type {
  AgentEvent,
  Hello,
  OperationName,
  Operations,
  ProcessExit,
  Spawn,
} from "../../protocol/index.js";
import { Unavailable } from "../errors.js";
import type { AgentFailure } from "../hypervisor/index.js";
import {
  type AgentClient,
  type BlankMachine,
  type Disks,
  type Hypervisor,
  type HypervisorInfo,
  type InputStream,
  type Machine,
  type MachineExit,
  type MachineRecord,
  type MachineSize,
  type MachineSpec,
  type OutputSink,
} from "../hypervisor/index.js";

export class TestMachine implements Machine, AgentClient {
  readonly record;
  readonly agent: AgentClient = this;
  readonly exited: Promise<MachineExit>;
  readonly closed: Promise<string>;
  readonly hello: Promise<Hello>;
  readonly shareSocket = "/nowhere/share.sock";
  settle: () => Promise<void> = () => Promise.resolve();
  readonly spans = [];
  readonly startKind = "cold";
  readonly seeded = false;
  readonly fallback = undefined;
  /** Names of the operations the guest was asked for, and "kill", "pause", "resume". */
  readonly asked: string[] = [];
  readonly signals: number[] = [];
  readonly stdin: Buffer[] = [];
  stdinEnded = false;
  /** What the next spawn fails with. */
  refuse: AgentFailure | undefined;
  /** Operations that are never answered. */
  unanswered: OperationName[] = [];
  /** Whether the streams of a process stay open when it ends. */
  leavesStreamsOpen = false;
  /** Signals the process dies from. */
  deadly = [9, 15];

  #listeners: ((event: AgentEvent) => void)[] = [];
  readonly #sinks = new Map<number, OutputSink[]>();
  readonly #offsets = new Map<OutputSink, number>();
  #resolveExited!: (exit: MachineExit) => void;
  #resolveClosed!: (reason: string) => void;

  /** @param hello when it says it; at once, unless told otherwise */
  constructor(
    readonly spec: MachineSpec,
    hello?: Promise<Hello>,
  ) {
    this.record = { driver: "test", pid: 4711, id: spec.id };
    this.exited = new Promise((resolve) => (this.#resolveExited = resolve));
    this.closed = new Promise((resolve) => (this.#resolveClosed = resolve));
    this.hello =
      hello ??
      Promise.resolve({
        protocol: 1,
        version: "test",
        kernel: "test",
        bootId: "test",
        uptimeMs: 0,
        ready: false,
        processes: [],
      });
  }

  onTrouble(): void {
    // A machine of a test has none.
  }

  async request<Op extends OperationName>(
    op: Op,
    args: Operations[Op]["args"],
  ): Promise<Operations[Op]["result"]> {
    await Promise.resolve();
    this.asked.push(op);
    if (this.unanswered.includes(op)) {
      return new Promise((_, reject) => {
        void this.closed.then((reason) => reject(new Unavailable(reason)));
      });
    }
    return this.#answer(op, args) as Operations[Op]["result"];
  }

  #answer(op: OperationName, args: unknown): unknown {
    if (op === "setup") return { timings: {} };
    if (op === "spawn") {
      const failure = this.refuse;
      this.refuse = undefined;
      if (failure) throw failure;
      return { pid: (args as Spawn).process };
    }
    if (op === "signal") {
      const { process, signal } = args as Operations["signal"]["args"];
      this.signals.push(signal);
      if (this.deadly.includes(signal)) this.exit(process, 128 + signal);
    }
    return {};
  }

  onEvent(listener: (event: AgentEvent) => void): () => void {
    this.#listeners.push(listener);
    return () => undefined;
  }

  output(process: number, _channel: number, sink: OutputSink): void {
    this.#sinks.set(process, [...(this.#sinks.get(process) ?? []), sink]);
  }

  input(): InputStream {
    return {
      write: (chunk) => {
        this.stdin.push(Buffer.from(chunk));
        return Promise.resolve();
      },
      end: () => (this.stdinEnded = true),
    };
  }

  /** A process writes. Resolves when it was acknowledged. */
  async write(process: number, text: string, channel = 0): Promise<number> {
    const sink = this.#sinks.get(process)?.[channel];
    if (!sink) throw new Error(`no sink of process ${process}`);
    const bytes = Buffer.from(text);
    const end = (this.#offsets.get(sink) ?? 0) + bytes.length;
    this.#offsets.set(sink, end);
    return new Promise((resolve) => sink.data(bytes, end, resolve));
  }

  /** The streams of a process end. */
  endStreams(process: number): void {
    for (const sink of this.#sinks.get(process) ?? []) sink.eof();
  }

  /** A process ends, its streams first. */
  exit(process: number, code: number, more: Partial<ProcessExit> = {}): void {
    if (!this.leavesStreamsOpen) this.endStreams(process);
    const exit = {
      code,
      signal: code > 128 ? code - 128 : 0,
      oomKilled: false,
      at: Date.now(),
      ...more,
    };
    for (const listen of this.#listeners) {
      listen({ event: "exit", process, exit });
    }
  }

  /** The machine's process ends by itself. */
  crash(reason: string): void {
    this.#resolveExited({ reason, expected: false });
    this.#resolveClosed(reason);
  }

  pause(): Promise<void> {
    this.asked.push("pause");
    return Promise.resolve();
  }

  resume(): Promise<void> {
    this.asked.push("resume");
    return Promise.resolve();
  }

  cost(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  kill(): Promise<void> {
    this.asked.push("kill");
    this.#resolveExited({ reason: "ended", expected: true });
    this.#resolveClosed("ended");
    return Promise.resolve();
  }

  save(): Promise<MachineRecord> {
    this.asked.push("save");
    return Promise.resolve({ driver: "test" });
  }

  console(): Promise<string> {
    return Promise.resolve("");
  }

  detach(): Promise<void> {
    return Promise.resolve();
  }
}

export class TestHypervisor implements Hypervisor {
  readonly warmMachines = 0;
  readonly zygotes = 0;
  readonly machines: TestMachine[] = [];
  readonly anticipated: (Disks | undefined)[] = [];
  /** Told of each machine before it boots. */
  onStart: (machine: TestMachine) => void = () => undefined;

  info(): Promise<HypervisorInfo> {
    return Promise.reject(new Error("not asked in these tests"));
  }

  prepare(): Promise<BlankMachine> {
    return Promise.resolve({
      taps: [],
      start: (spec: MachineSpec): Promise<Machine> => {
        const machine = new TestMachine(spec);
        this.machines.push(machine);
        this.onStart(machine);
        return Promise.resolve(machine);
      },
      discard: () => undefined,
    });
  }

  anticipate(_size: MachineSize, wish?: Disks): void {
    this.anticipated.push(wish);
  }

  prepareSaved(): Promise<BlankMachine> {
    return this.prepare();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  reattach(): Promise<Machine | undefined> {
    return Promise.resolve(undefined);
  }

  end(): Promise<void> {
    return Promise.resolve();
  }

  endOrphans(): Promise<number> {
    return Promise.resolve(0);
  }

  /** The machine that was started last. */
  get last(): TestMachine {
    const machine = this.machines.at(-1);
    if (!machine) throw new Error("no machine was started");
    return machine;
  }
}
