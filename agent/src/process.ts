/**
 * A process of the container as the agent keeps it: its streams, its terminal, and how it ended, until
 * the host releases it.
 */
import {
  Channel as StreamChannel,
  streamOf,
  type ProcessExit,
  type ProcessState,
  type Spawn,
} from "../../protocol/index.js";
import type { Channel } from "./channel.js";
import { O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_RDWR } from "./constants.js";
import type { Container } from "./container.js";
import { Failure, step } from "./failure.js";
import type { FirstProcess } from "./first-process.js";
import type { EventLoop } from "./loop.js";
import { Report } from "./report.js";
import {
  closeAll,
  closeChilds,
  openOutputs,
  openPipes,
  type Stdio,
} from "./stdio.js";
import { InputStream, type OutputStream } from "./streams.js";

/**
 * How long an ended process's streams stay open when its descendants hold them, and how long its exit
 * waits at most for its output to be sent. Docker's number.
 */
const GRACE_MS = 2000;

export interface ProcessContext {
  loop: EventLoop;
  channel: Channel;
  container: Container;
  /** Descriptor of the agent's own PID namespace. */
  ownPidNamespace: number;
  /** The container's first process; undefined while that one is started. */
  init?: { pid: number; pidfd: number };
  /** The container's first process, where it has been made already and is the one to be started. */
  made?: FirstProcess;
  /** Called once: the process's end is known and may be told. */
  onExit: (process: Process) => void;
}

/** What the agent needs to know of what it runs. */
export type Program = Pick<Spawn, "process" | "tty" | "stdin">;

/** Something that runs in a process of its own. */
export abstract class Process {
  readonly id: number;
  pid = 0;
  exit: ProcessExit | undefined;
  private stdin: InputStream | undefined;
  /** stdout, and stderr unless it has a terminal. */
  private outputs: readonly OutputStream[] = [];
  private terminal = -1;
  /** The end was told, or is of no interest any more. */
  private told = false;
  /** The grace of GRACE_MS runs. */
  private waiting = false;

  constructor(
    private readonly program: Program,
    protected readonly context: ProcessContext,
  ) {
    this.id = program.process;
  }

  /** Whether it was executed and has not ended. */
  get running(): boolean {
    return this.pid > 0 && this.exit === undefined;
  }

  get state(): ProcessState {
    const { id, pid, exit } = this;
    const [stdout, stderr] = this.outputs;
    return {
      process: id,
      pid,
      ...(exit ? { exit } : {}),
      stdout: {
        produced: stdout?.produced ?? 0,
        ended: stdout?.ended ?? true,
      },
      stderr: {
        produced: stderr?.produced ?? 0,
        ended: stderr?.ended ?? true,
      },
      stdinReceived: this.stdin?.received ?? 0,
    };
  }

  /** The host has all of its output. */
  get acknowledged(): boolean {
    return this.outputs.every((output) => output.acknowledged);
  }

  /**
   * Starts it. `onPid` is called as soon as the child is there: its end may come before the answer.
   * @throws {Failure} why it could not be executed
   */
  async start(onPid: (pid: number) => void): Promise<void> {
    const { loop, channel, made } = this.context;
    const child = made ? this.take(made) : this.makeChild();
    const { pid, report } = child;
    this.outputs = child.outputs;
    onPid(pid);
    this.stdin = new InputStream(
      streamOf(this.id, StreamChannel.Stdin),
      child.input,
      !this.program.tty,
      loop,
      channel,
    );
    this.terminal = child.terminal;
    this.accept(await report.text);
    this.pid = pid;
    // Given up meanwhile.
    if (this.told) return;
    // The answer to the request is queued before the next round: it comes before the output and the end.
    for (const output of this.outputs) output.begin(() => this.settle());
    this.stdin.start();
    if (this.exit) loop.soon(() => this.settle());
  }

  /** Its end was seen by wait(2). */
  ended(exit: ProcessExit): void {
    this.exit = exit;
    if (this.pid > 0) this.settle();
  }

  data(
    channel: StreamChannel,
    offset: number,
    bytes: ArrayBuffer,
    at: number,
    length: number,
  ): void {
    if (channel === StreamChannel.Stdin)
      this.stdin?.data(offset, bytes, at, length);
  }

  eof(channel: StreamChannel, offset: number): void {
    if (channel === StreamChannel.Stdin) this.stdin?.end(offset);
  }

  ack(channel: StreamChannel, offset: number): void {
    const [stdout, stderr] = this.outputs;
    if (channel === StreamChannel.Stdout) stdout?.ack(offset);
    if (channel === StreamChannel.Stderr) stderr?.ack(offset);
  }

  sync(): void {
    this.stdin?.sync();
    for (const output of this.outputs) output.sync();
  }

  /** @throws {Failure} it has no terminal */
  resize(rows: number, columns: number): void {
    if (!this.program.tty || this.terminal < 0)
      throw new Failure("invalid", `process ${this.id} has no terminal`);
    sys.resizeTerminal(this.terminal, rows, columns);
  }

  /** Gives back what is kept of it. */
  release(): void {
    this.told = true;
    this.stdin?.close();
    for (const output of this.outputs) output.close();
    closeAll([this.terminal]);
    this.terminal = -1;
  }

  /**
   * Makes the child, which never comes back from here.
   * @param report where it says how its start went
   */
  protected abstract fork(stdio: Stdio["child"], report: number): number;

  /** Tells the child that was made before what it is to be. */
  protected order(made: FirstProcess): void {
    throw new Failure("invalid", `process ${made.pid} is of another kind`);
  }

  /** Reads the child's report. @throws {Failure} it could not start */
  protected abstract accept(report: string): void;

  private makeChild(): Child {
    const { loop, channel, container } = this.context;
    const stdio = openStdio(this.program, container);
    const { input, terminal } = stdio;
    const [report, reportWrite] = sys.pipe();
    let pid: number;
    try {
      pid = this.fork(stdio.child, reportWrite);
    } catch (error) {
      closeAll([input, stdio.output, stdio.error, terminal, report]);
      throw error;
    } finally {
      closeChilds(stdio, reportWrite);
    }
    return {
      pid,
      input,
      terminal,
      outputs: openOutputs(this.id, stdio, loop, channel),
      report: new Report(report, loop),
    };
  }

  private take(made: FirstProcess): Child {
    try {
      this.order(made);
    } catch (error) {
      made.close();
      throw error;
    }
    const { pid, outputs, report } = made;
    const input = made.takeInput(this.program.stdin ?? false);
    return { pid, input, terminal: -1, outputs, report };
  }

  /** After its end: reads what is left, and tells the end when the output was sent. */
  private settle(): void {
    if (!this.exit || this.told) return;
    this.stdin?.close();
    for (const output of this.outputs) output.drain();
    const done = this.outputs.every((output) => output.done);
    // Descendants of an exec hold its pipes: they may go on for ever.
    const held = this.outputs.some((output) => !output.ended && !output.full);
    if (done || held) this.tell();
    if (!done && !this.waiting) {
      this.waiting = true;
      this.context.loop.after(GRACE_MS, () => {
        this.tell();
        for (const output of this.outputs) output.finish();
      });
    }
  }

  private tell(): void {
    if (this.told) return;
    this.told = true;
    this.context.onExit(this);
  }
}

/** A child and the agent's ends of what it has. */
interface Child {
  pid: number;
  input: number;
  outputs: readonly OutputStream[];
  terminal: number;
  report: Report;
}

function openStdio(spawn: Program, container: Container): Stdio {
  if (spawn.tty) {
    const master = step("open a terminal", () =>
      sys.open(
        container.terminals,
        "ptmx",
        O_RDWR | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK,
        0,
      ),
    );
    const slave = step("open a terminal", () => sys.openTerminal(master));
    sys.resizeTerminal(slave, spawn.tty.rows, spawn.tty.columns);
    return {
      child: [slave, slave, slave],
      input: spawn.stdin ? sys.duplicate(master) : -1,
      output: master,
      error: -1,
      terminal: sys.duplicate(master),
    };
  }
  return openPipes(spawn.stdin ?? false);
}

export function failureFrom(report: string): Failure {
  try {
    const { code, message, errno } = JSON.parse(report) as Failure;
    return new Failure(code, message, errno);
  } catch {
    return new Failure("system", "the process could not be started");
  }
}
