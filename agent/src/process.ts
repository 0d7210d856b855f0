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
import {
  EPOLLIN,
  O_NOCTTY,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_RDWR,
} from "./constants.js";
import type { Container } from "./container.js";
import { Failure, step } from "./failure.js";
import { enlarge } from "./files.js";
import type { FirstProcess } from "./first-process.js";
import type { EventLoop } from "./loop.js";
import { closeAll, closeChilds, openPipes, type Stdio } from "./stdio.js";
import { InputStream, OutputStream } from "./streams.js";

/**
 * How long an ended process's streams stay open when its descendants hold them, and how long its exit
 * waits at most for its output to be sent. Docker's number.
 */
const GRACE_MS = 2000;
/** A longer report is cut. */
const MAX_REPORT = 64 * 1024;
/** Most say nothing: large memory would be cleared for it. */
const SHORT_REPORT = 1024;

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
  private stdout: OutputStream | undefined;
  private stderr: OutputStream | undefined;
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
    return {
      process: id,
      pid,
      ...(exit ? { exit } : {}),
      stdout: {
        produced: this.stdout?.produced ?? 0,
        ended: this.stdout?.ended ?? true,
      },
      stderr: {
        produced: this.stderr?.produced ?? 0,
        ended: this.stderr?.ended ?? true,
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
    const { context, program } = this;
    const { made } = context;
    const stdio = made
      ? made.takeStdio(program.stdin ?? false)
      : openStdio(program, context.container);
    const [reportRead, reportWrite] = made ? [made.report, -1] : sys.pipe();
    let pid: number;
    try {
      pid = made ? this.order(made) : this.fork(stdio.child, reportWrite);
    } catch (error) {
      closeAll([stdio.input, stdio.output, stdio.error, stdio.terminal]);
      closeAll([reportRead]);
      throw error;
    } finally {
      if (!made) closeChilds(stdio, reportWrite);
    }
    onPid(pid);
    this.stdin = new InputStream(
      streamOf(this.id, StreamChannel.Stdin),
      stdio.input,
      !program.tty,
      context.loop,
      context.channel,
    );
    const report = await this.readReport(reportRead);
    try {
      this.accept(report);
    } catch (error) {
      closeAll([stdio.output, stdio.error, stdio.terminal]);
      throw error;
    }
    this.pid = pid;
    this.terminal = stdio.terminal;
    // A round later, so that the answer to the request comes before the output and the end.
    context.loop.soon(() => {
      // Given up meanwhile.
      if (this.told) return closeAll([stdio.output, stdio.error]);
      this.openOutputs(stdio);
      this.stdin?.start();
      if (this.exit) this.settle();
    });
  }

  /** Its end was seen by wait(2). */
  ended(exit: ProcessExit): void {
    this.exit = exit;
    if (this.stdout) this.settle();
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
    if (channel === StreamChannel.Stdout) this.stdout?.ack(offset);
    if (channel === StreamChannel.Stderr) this.stderr?.ack(offset);
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

  /** Tells the child that was made before what it is to be. @returns its PID */
  protected order(made: FirstProcess): number {
    throw new Failure("invalid", `process ${made.pid} is of another kind`);
  }

  /** Reads the child's report. @throws {Failure} it could not start */
  protected abstract accept(report: string): void;

  private get outputs(): OutputStream[] {
    return [this.stdout, this.stderr].filter((output) => output !== undefined);
  }

  private openOutputs(stdio: Stdio): void {
    const { loop, channel } = this.context;
    const settle = () => this.settle();
    this.stdout = new OutputStream(
      streamOf(this.id, StreamChannel.Stdout),
      stdio.output,
      loop,
      channel,
      settle,
    );
    if (stdio.error >= 0)
      this.stderr = new OutputStream(
        streamOf(this.id, StreamChannel.Stderr),
        stdio.error,
        loop,
        channel,
        settle,
      );
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

  /** What the child reports: "" once the program runs. */
  private readReport(fd: number): Promise<string> {
    const { loop } = this.context;
    let bytes = new ArrayBuffer(SHORT_REPORT);
    let length = 0;
    return new Promise((resolve) => {
      loop.add(fd, EPOLLIN, () => {
        const count = sys.read(fd, bytes, length, bytes.byteLength - length);
        if (count > 0) {
          length += count;
          if (length === SHORT_REPORT) bytes = enlarge(bytes, MAX_REPORT);
          return;
        }
        loop.remove(fd);
        sys.close(fd);
        resolve(sys.decode(bytes, 0, length));
      });
    });
  }
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
