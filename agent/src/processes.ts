/** The processes that were asked for, by their numbers, until the host releases them. */
import {
  INIT_PROCESS,
  type Channel as StreamChannel,
  type Furnish,
  type Operations,
  type ProcessExit,
  type ProcessState,
} from "../../protocol/index.js";
import { killAll, listPids } from "./cgroup.js";
import type { Channel } from "./channel.js";
import {
  AT_FDCWD,
  CLOCK_REALTIME,
  EPOLLIN,
  O_RDONLY,
  SIGCHLD,
  SIGKILL,
} from "./constants.js";
import type { Container } from "./container.js";
import { Failure } from "./failure.js";
import { FileProcess, checkFileWork } from "./file-work.js";
import { FirstProcess } from "./first-process.js";
import type { EventLoop } from "./loop.js";
import type { Process, ProcessContext } from "./process.js";
import { ProgramProcess } from "./program-process.js";
import { unless } from "./sys.js";

/** How a child ended. */
export type Ended = NonNullable<ReturnType<typeof sys.wait>>;

export interface ProcessesOptions {
  loop: EventLoop;
  channel: Channel;
  /** @throws {Failure} there is none */
  container: () => Container;
  /** Whether the container has ever been short of memory, looked up now. */
  oomKilled: () => boolean;
  /** Hears of children that are none of these. */
  onOther: (ended: Ended) => void;
}

export class Processes {
  private readonly byNumber = new Map<number, Process>();
  private readonly byPid = new Map<number, Process>();
  private ownPidNamespace = -1;
  private init: { pid: number; pidfd: number } | undefined;
  /** Made ahead, and waiting for the container to be known. */
  private first: FirstProcess | undefined;
  /** Has memory to give back that the first process had before it was executed; 0: there is none. */
  private lender = 0;

  constructor(private readonly options: ProcessesOptions) {
    const signals = sys.signalfd(SIGCHLD);
    const signalInfo = new ArrayBuffer(4096);
    options.loop.add(signals, EPOLLIN, () => {
      sys.read(signals, signalInfo, 0, signalInfo.byteLength);
      this.reap();
    });
  }

  get none(): boolean {
    return this.byNumber.size === 0;
  }

  /** Of those that run a program. */
  get states(): ProcessState[] {
    return [...this.byNumber.values()]
      .filter((process) => !(process instanceof FileProcess))
      .map((process) => process.state);
  }

  /** Once, before any is started. */
  prepare(): void {
    const path = "/proc/self/ns/pid";
    this.ownPidNamespace = sys.open(AT_FDCWD, path, O_RDONLY, 0);
  }

  /** Makes the container's first process ahead of it. */
  makeFirst(furnish: Furnish, cgroup: number): void {
    const { loop, channel } = this.options;
    this.first = FirstProcess.make(furnish, cgroup, loop, channel);
    this.lender = this.first?.lender ?? 0;
  }

  /** The one that was made ahead, if there is one, does not serve. */
  endFirst(): void {
    this.first?.end();
    this.first = undefined;
    this.dismissLender();
  }

  /** The container is gone, and all of its processes were released. */
  forgetInit(): void {
    this.dismissLender();
    if (this.init) sys.close(this.init.pidfd);
    this.init = undefined;
  }

  async spawn(
    args: Operations["spawn"]["args"],
    text: string,
  ): Promise<{ pid: number }> {
    const { init } = this;
    const { process: id } = args;
    const context = this.contextFor(id);
    const first = id === INIT_PROCESS;
    if (!first && (!init || !this.byNumber.get(INIT_PROCESS)?.running))
      throw new Failure("invalid", "the container is not running");
    const made = first ? this.takeFirst(args) : undefined;
    if (made) {
      context.made = made;
      this.options.loop.whenQuiet(() => this.dismissLender());
    } else if (!first && init) context.init = init;
    const process = new ProgramProcess(args, text, context);
    this.byNumber.set(id, process);
    try {
      await process.start((pid) => {
        this.byPid.set(pid, process);
        if (first) this.init = { pid, pidfd: made?.pidfd ?? sys.pidfd(pid) };
      });
    } catch (error) {
      this.byNumber.delete(id);
      process.release();
      if (first) this.forgetInit();
      throw error;
    }
    return { pid: process.pid };
  }

  async workOnFiles(
    args: Operations["files"]["args"],
  ): Promise<Operations["files"]["result"]> {
    checkFileWork(args);
    const { process: id } = args;
    const work = new FileProcess(args, this.contextFor(id));
    this.byNumber.set(id, work);
    try {
      await work.start((pid) => this.byPid.set(pid, work));
    } catch (error) {
      this.byNumber.delete(id);
      work.release();
      throw error;
    }
    return { pid: work.pid, ...(work.stat ? { stat: work.stat } : {}) };
  }

  signal({
    process: id,
    signal,
    all,
  }: Operations["signal"]["args"]): Record<string, never> {
    if (!Number.isInteger(signal) || signal < 0 || signal > 64)
      throw new Failure("invalid", `signal: ${signal} is no signal`);
    const process = this.find(id);
    if (all) {
      if (signal === SIGKILL) killAll();
      else
        for (const pid of listPids())
          unless(["ESRCH"], () => sys.kill(pid, signal));
      return {};
    }
    // Its number may be another process's already.
    if (!process.running)
      throw new Failure("not-found", `process ${id} has ended`);
    sys.kill(process.pid, signal);
    return {};
  }

  release(id: number): Record<string, never> {
    const process = this.find(id);
    if (!process.exit)
      throw new Failure("invalid", `process ${id} has not ended`);
    if (!(process instanceof FileProcess) && !process.acknowledged)
      throw new Failure("invalid", `process ${id}: output is not acknowledged`);
    process.release();
    this.byNumber.delete(id);
    return {};
  }

  /** A new host connection has begun. */
  sync(): void {
    for (const process of [...this.byNumber.values()])
      if (process instanceof FileProcess) this.abandon(process);
      else process.sync();
  }

  /** Work on files is not waited for. */
  abandonWork(): void {
    for (const process of this.byNumber.values())
      if (process instanceof FileProcess) process.abandon();
  }

  /** @throws {Failure} there is none of that number */
  find(id: number): Process {
    const process = this.byNumber.get(id);
    if (!process) throw new Failure("not-found", `no process ${id}`);
    return process;
  }

  /** Does nothing where there is no such stream. */
  withStream(
    stream: number,
    use: (process: Process, channel: StreamChannel) => void,
  ): void {
    const process = this.byNumber.get(Math.floor(stream / 4));
    const channel = stream % 4;
    if (process && channel <= 2) use(process, channel as StreamChannel);
  }

  /** Its host is gone: it ends, and nobody hears of it. */
  private abandon(work: FileProcess): void {
    work.abandon();
    work.release();
    this.byNumber.delete(work.id);
  }

  /** The container's first process where it was made ahead and serves; one that does not is ended. */
  private takeFirst(
    spawn: Operations["spawn"]["args"],
  ): FirstProcess | undefined {
    const { first } = this;
    if (first?.fits(this.options.container().setup, spawn)) {
      this.first = undefined;
      return first;
    }
    this.endFirst();
    return undefined;
  }

  /** It is gone when this comes back. */
  private dismissLender(): void {
    const { lender } = this;
    this.lender = 0;
    if (lender <= 0) return;
    sys.kill(lender, SIGKILL);
    sys.reap(lender);
  }

  /** What a new process needs; checks that it may have this number. */
  private contextFor(id: number): ProcessContext {
    const { loop, channel, container } = this.options;
    const found = container();
    if (!Number.isInteger(id) || id < INIT_PROCESS || id >= 2 ** 29)
      throw new Failure("invalid", `process: ${id} is no process number`);
    if (this.byNumber.has(id))
      throw new Failure("invalid", `process ${id} is there already`);
    return {
      loop,
      channel,
      container: found,
      ownPidNamespace: this.ownPidNamespace,
      onExit: (process) => this.onExit(process),
    };
  }

  private reap(): void {
    for (let ended; (ended = sys.wait());) {
      const { pid, code, signal } = ended;
      if (pid === this.lender) this.lender = 0;
      if (pid === this.first?.pid) {
        this.first.close();
        this.first = undefined;
      }
      const process = this.byPid.get(pid);
      if (!process) {
        this.options.onOther(ended);
        continue;
      }
      this.byPid.delete(pid);
      const exit: ProcessExit = {
        code,
        signal,
        oomKilled: this.options.oomKilled(),
        at: Math.round(sys.clock(CLOCK_REALTIME)),
      };
      process.ended(exit);
    }
  }

  private onExit({ id, exit }: Process): void {
    if (exit) this.options.channel.event({ event: "exit", process: id, exit });
  }
}
