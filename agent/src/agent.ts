/** The agent: carries out the host's requests and tells what happens to the container. */
import {
  INIT_PROCESS,
  PROTOCOL_VERSION,
  type AgentErrorCode,
  type Channel as StreamChannel,
  type Hello,
  type Operations,
  type ProcessExit,
  type Request,
} from "../../protocol/index.js";
import {
  countOomKills,
  freeze,
  isFrozen,
  killAll,
  listPids,
  openMemoryEvents,
  setLimits,
} from "./cgroup.js";
import { Channel, type Receiver } from "./channel.js";
import {
  AT_FDCWD,
  CLOCK_BOOTTIME,
  CLOCK_MONOTONIC,
  CLOCK_REALTIME,
  EPOLLET,
  EPOLLIN,
  EPOLLPRI,
  O_RDONLY,
  SIGCHLD,
  SIGKILL,
} from "./constants.js";
import { mountWorkplace, protectSelf } from "./boot.js";
import {
  furnishContainer,
  prepareContainer,
  removeContainer,
  reseed,
  setClock,
  setUpContainer,
  type Container,
  type Prepared,
} from "./container.js";
import { Failure, describe, toAgentError } from "./failure.js";
import { FirstProcess } from "./first-process.js";
import { FileProcess, checkFileWork } from "./file-work.js";
import { readText } from "./files.js";
import { Loading } from "./loading.js";
import { EventLoop } from "./loop.js";
import { listProcesses } from "./process-list.js";
import type { Process, ProcessContext } from "./process.js";
import { ProgramProcess } from "./program-process.js";
import { checkRequest, parseRequest } from "./requests.js";
import { rewriteFiles, unmountAll } from "./rootfs.js";
import { unless } from "./sys.js";
import { readUsage } from "./usage.js";

/** Set by the build: the package's version and a hash of the agent's code. */
declare const AGENT_VERSION: string;

const PAGE_SIZE = 4096;
/** How long `shutdown` waits for killed processes to be gone. */
const KILL_TIMEOUT_MS = 10_000;

export class Agent implements Receiver {
  private readonly loop: EventLoop = new EventLoop((error) =>
    this.log("error", describe(error)),
  );
  private readonly channel: Channel;
  private readonly processes = new Map<number, Process>();
  private readonly byPid = new Map<number, Process>();
  private ownPidNamespace = -1;
  private prepared: Prepared | undefined;
  private container: Container | undefined;
  private setupBegun = false;
  /** Has been given entropy of its own. */
  private seeded = false;
  private init: { pid: number; pidfd: number } | undefined;
  /** Made ahead, and waiting for the container to be known. */
  private first: FirstProcess | undefined;
  /** Has memory to give back that the first process had before it was executed; 0: there is none. */
  private lender = 0;
  private loading: Loading | undefined;
  private memoryEvents = -1;
  private oomKills = 0;
  /** Counts connections: answers to requests of an earlier one are not sent. */
  private connection = 0;
  private readyMs = 0;

  constructor(port: number) {
    this.channel = new Channel(port, this.loop, this);
    const signals = sys.signalfd(SIGCHLD);
    const signalInfo = new ArrayBuffer(4096);
    this.loop.add(signals, EPOLLIN, () => {
      sys.read(signals, signalInfo, 0, signalInfo.byteLength);
      this.reap();
    });
    this.loop.eachRound(() => this.channel.round());
  }

  /** Says hello and serves for ever. */
  run(): never {
    this.readyMs = sys.clock(CLOCK_MONOTONIC) - sys.startedAt;
    this.channel.event({ event: "hello", hello: this.hello() });
    // After the hello was sent: nobody waits for it. An error comes again, and counts, in `setup`.
    this.loop.after(0, () => this.prepare());
    this.loop.run(() => this.channel.busy);
  }

  request(text: string): void {
    const raw = parseRequest(text);
    if (!raw) {
      this.log("error", "a request could not be read");
      return;
    }
    const { connection } = this;
    const respond = (response: Parameters<Channel["respond"]>[0]) => {
      if (connection === this.connection) this.channel.respond(response);
    };
    const fail = (error: unknown) =>
      respond({ id: raw.id, ok: false, error: toAgentError(error) });
    try {
      // Begun at once: frames that follow it may be for the process it starts.
      const result = this.perform(checkRequest(raw), text);
      const succeed = (result: unknown) =>
        respond({ id: raw.id, ok: true, result });
      if (result instanceof Promise) result.then(succeed, fail);
      else succeed(result);
    } catch (error) {
      fail(error);
    }
  }

  data(
    stream: number,
    offset: number,
    bytes: ArrayBuffer,
    at: number,
    length: number,
  ): void {
    this.withStream(stream, (process, channel) =>
      process.data(channel, offset, bytes, at, length),
    );
  }

  eof(stream: number, offset: number): void {
    this.withStream(stream, (process, channel) => process.eof(channel, offset));
  }

  ack(stream: number, offset: number): void {
    this.withStream(stream, (process, channel) => process.ack(channel, offset));
  }

  sync(): void {
    this.connection++;
    for (const process of [...this.processes.values()])
      if (process instanceof FileProcess) this.abandon(process);
      else process.sync();
  }

  private perform(request: Request, text: string): unknown {
    switch (request.op) {
      case "hello":
        this.prepare();
        return this.hello();
      case "setup":
        return this.setUp(request.args);
      case "reset":
        return this.reset();
      case "furnish":
        return this.furnish(request.args);
      case "load":
        return this.load(request.args);
      case "rouse":
        return this.rouse();
      case "seed":
        return this.seed(request.args);
      case "wake":
        this.requireContainer();
        setClock(request.args.time);
        reseed(request.args.entropy);
        return {};
      case "spawn":
        return this.spawn(request.args, text);
      case "signal":
        return this.signal(request.args);
      case "resize":
        this.find(request.args.process).resize(
          request.args.rows,
          request.args.columns,
        );
        return {};
      case "release":
        return this.release(request.args.process);
      case "processes":
        return { processes: listProcesses() };
      case "files":
        return this.workOnFiles(request.args);
      case "freeze":
        return this.freeze(request.args.frozen);
      case "network":
        this.requireContainer().network.change(request.args);
        rewriteFiles(request.args.files);
        return {};
      case "usage":
        this.requireContainer();
        return readUsage();
      case "limit":
        this.requireContainer();
        setLimits(request.args.limits);
        return {};
      case "shutdown":
        return this.shutDown();
    }
  }

  private hello(): Hello {
    return {
      protocol: PROTOCOL_VERSION,
      version: AGENT_VERSION,
      kernel: sys.release(),
      // The kernel makes it up when it is first read: in a template that would be all clones' one.
      bootId: this.container
        ? readText("/proc/sys/kernel/random/boot_id").trim()
        : "",
      // Whole numbers: to write others as decimals is new code for a machine that was just restored.
      uptimeMs: Math.round(sys.clock(CLOCK_BOOTTIME)),
      agent: {
        residentBytes: residentBytes(),
        readyMs: Math.round(this.readyMs),
      },
      ready: this.container !== undefined,
      processes: [...this.processes.values()]
        .filter((process) => !(process instanceof FileProcess))
        .map((process) => process.state),
    };
  }

  private prepare(): void {
    if (this.prepared || this.setupBegun) return;
    if (this.ownPidNamespace < 0) {
      protectSelf();
      mountWorkplace();
      const path = "/proc/self/ns/pid";
      this.ownPidNamespace = sys.open(AT_FDCWD, path, O_RDONLY, 0);
    }
    this.prepared = prepareContainer();
    this.watchMemory();
  }

  private setUp(
    args: Operations["setup"]["args"],
  ): Operations["setup"]["result"] {
    if (this.setupBegun)
      throw refused("invalid", "this machine was set up before");
    if (this.loading) throw refused("invalid", "a program is being loaded");
    if (args.entropy === undefined && !this.seeded)
      throw refused("invalid", "entropy: this machine has had none");
    this.prepare();
    const { prepared } = this;
    if (!prepared) throw refused("system", "the machine is not prepared");
    this.setupBegun = true;
    this.prepared = undefined;
    const { container, result } = setUpContainer(args, prepared);
    this.container = container;
    // Its mount namespace is a copy.
    if (!container.asFurnished) this.endFirst();
    if (args.privileged) this.watchMemory();
    return result;
  }

  /** Whatever fails here leaves a machine that cannot be set up. */
  private async reset(): Promise<Record<string, never>> {
    const container = this.requireContainer();
    if (this.processes.size > 0 || listPids().length > 0)
      throw refused("invalid", "processes of this machine are still there");
    this.dismissLender();
    this.container = undefined;
    if (this.init) sys.close(this.init.pidfd);
    this.init = undefined;
    this.oomKills = 0;
    await removeContainer(container, this.loop);
    this.setupBegun = this.seeded = false;
    this.prepare();
    sys.collect();
    return {};
  }

  private furnish(args: Operations["furnish"]["args"]): Record<string, never> {
    if (this.setupBegun || this.prepared?.furnished)
      throw refused("invalid", "this machine was furnished or set up before");
    this.prepare();
    if (!this.prepared) throw refused("system", "the machine is not prepared");
    this.prepared = furnishContainer(args, this.prepared);
    this.first = FirstProcess.make(
      args,
      this.prepared.cgroup,
      this.loop,
      this.channel,
    );
    this.lender = this.first?.lender ?? 0;
    sys.sync();
    return {};
  }

  private load({
    program,
  }: Operations["load"]["args"]): Promise<Operations["load"]["result"]> {
    if (!this.prepared?.furnished || this.loading)
      throw refused("invalid", "the machine is not furnished, or is loading");
    this.loading = Loading.begin(program, this.loop);
    return this.loading.result;
  }

  private rouse(): Record<string, never> {
    if (!this.prepared)
      throw refused("invalid", "this machine was set up before");
    this.prepared.network.rehearse();
    return {};
  }

  private seed({ entropy }: Operations["seed"]["args"]): Record<string, never> {
    if (this.setupBegun)
      throw refused("invalid", "this machine was set up before");
    reseed(entropy);
    this.seeded = true;
    return {};
  }

  private async spawn(
    args: Operations["spawn"]["args"],
    text: string,
  ): Promise<{ pid: number }> {
    const { init } = this;
    const { process: id } = args;
    const context = this.contextFor(id);
    const first = id === INIT_PROCESS;
    if (!first && (!init || !this.processes.get(INIT_PROCESS)?.running))
      throw refused("invalid", "the container is not running");
    const made = first ? this.takeFirst(args) : undefined;
    if (made) {
      context.made = made;
      this.loop.whenQuiet(() => this.dismissLender());
    } else if (!first && init) context.init = init;
    const process = new ProgramProcess(args, text, context);
    this.processes.set(id, process);
    try {
      await process.start((pid) => {
        this.byPid.set(pid, process);
        if (first) this.init = { pid, pidfd: made?.pidfd ?? sys.pidfd(pid) };
      });
    } catch (error) {
      this.processes.delete(id);
      process.release();
      if (first && this.init) {
        sys.close(this.init.pidfd);
        this.init = undefined;
      }
      throw error;
    }
    return { pid: process.pid };
  }

  /** The container's first process where it was made ahead and serves; one that does not is ended. */
  private takeFirst(spawn: Operations["spawn"]["args"]) {
    const { first } = this;
    if (first?.fits(this.requireContainer().setup, spawn)) {
      this.first = undefined;
      return first;
    }
    this.endFirst();
    return undefined;
  }

  private endFirst(): void {
    this.first?.end();
    this.first = undefined;
    this.dismissLender();
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
    const container = this.requireContainer();
    if (!Number.isInteger(id) || id < INIT_PROCESS || id >= 2 ** 29)
      throw refused("invalid", `process: ${id} is no process number`);
    if (this.processes.has(id))
      throw refused("invalid", `process ${id} is there already`);
    return {
      loop: this.loop,
      channel: this.channel,
      container,
      ownPidNamespace: this.ownPidNamespace,
      onExit: (process) => this.onExit(process),
    };
  }

  private async workOnFiles(
    args: Operations["files"]["args"],
  ): Promise<Operations["files"]["result"]> {
    checkFileWork(args);
    const { process: id } = args;
    const work = new FileProcess(args, this.contextFor(id));
    this.processes.set(id, work);
    try {
      await work.start((pid) => this.byPid.set(pid, work));
    } catch (error) {
      this.processes.delete(id);
      work.release();
      throw error;
    }
    return { pid: work.pid, ...(work.stat ? { stat: work.stat } : {}) };
  }

  /** Its host is gone: it ends, and nobody hears of it. */
  private abandon(work: FileProcess): void {
    work.abandon();
    work.release();
    this.processes.delete(work.id);
  }

  private async freeze(frozen: boolean): Promise<Record<string, never>> {
    this.requireContainer();
    freeze(frozen);
    for (
      let waited = 0;
      frozen && !isFrozen() && waited < KILL_TIMEOUT_MS;
      waited += 5
    )
      await this.loop.pause(5);
    return {};
  }

  private signal({
    process: id,
    signal,
    all,
  }: Operations["signal"]["args"]): Record<string, never> {
    if (!Number.isInteger(signal) || signal < 0 || signal > 64)
      throw refused("invalid", `signal: ${signal} is no signal`);
    const process = this.find(id);
    if (all) {
      if (signal === SIGKILL) killAll();
      else
        for (const pid of listPids())
          unless(["ESRCH"], () => sys.kill(pid, signal));
      return {};
    }
    // Its number may be another process's already.
    if (!process.running) throw refused("not-found", `process ${id} has ended`);
    sys.kill(process.pid, signal);
    return {};
  }

  private release(id: number): Record<string, never> {
    const process = this.find(id);
    if (!process.exit) throw refused("invalid", `process ${id} has not ended`);
    if (!(process instanceof FileProcess) && !process.acknowledged)
      throw refused("invalid", `process ${id}: output is not acknowledged`);
    process.release();
    this.processes.delete(id);
    return {};
  }

  private async shutDown(): Promise<Record<string, never>> {
    const { container, loop } = this;
    if (container) {
      for (const process of this.processes.values())
        if (process instanceof FileProcess) process.abandon();
      killAll();
      for (
        let waited = 0;
        listPids().length > 0 && waited < KILL_TIMEOUT_MS;
        waited += 5
      )
        await loop.pause(5);
      const { mounts = [] } = container.setup;
      unmountAll(mounts.map(({ target }) => target));
    }
    sys.sync();
    return {};
  }

  private requireContainer(): Container {
    if (!this.container)
      throw refused("invalid", "this machine was not set up");
    return this.container;
  }

  private find(id: number): Process {
    const process = this.processes.get(id);
    if (!process) throw refused("not-found", `no process ${id}`);
    return process;
  }

  private withStream(
    stream: number,
    use: (process: Process, channel: StreamChannel) => void,
  ): void {
    const process = this.processes.get(Math.floor(stream / 4));
    const channel = stream % 4;
    if (!process || channel > 2) return;
    try {
      use(process, channel as StreamChannel);
    } catch (error) {
      this.log("error", `stream ${stream}: ${describe(error)}`);
    }
  }

  private reap(): void {
    for (let ended; (ended = sys.wait());) {
      if (ended.pid === this.lender) this.lender = 0;
      if (ended.pid === this.first?.pid) {
        this.first.close();
        this.first = undefined;
      }
      if (ended.pid === this.loading?.pid) {
        this.loading.ended({ code: ended.code, signal: ended.signal });
        this.loading = undefined;
        continue;
      }
      const process = this.byPid.get(ended.pid);
      this.byPid.delete(ended.pid);
      if (!process) continue;
      const exit: ProcessExit = {
        code: ended.code,
        signal: ended.signal,
        oomKilled: this.checkMemory() > 0,
        at: Math.round(sys.clock(CLOCK_REALTIME)),
      };
      process.ended(exit);
    }
  }

  private onExit(process: Process): void {
    if (process.exit)
      this.channel.event({
        event: "exit",
        process: process.id,
        exit: process.exit,
      });
  }

  /** Of the container's cgroup, which may be another one than the last time. */
  private watchMemory(): void {
    if (this.memoryEvents >= 0) {
      this.loop.remove(this.memoryEvents);
      sys.close(this.memoryEvents);
    }
    // Edge-triggered: the file says "changed" until it is read, and the counters are read elsewhere.
    this.memoryEvents = openMemoryEvents();
    this.loop.add(this.memoryEvents, EPOLLPRI | EPOLLET, () =>
      this.checkMemory(),
    );
  }

  /** Tells of processes killed for want of memory since the last look; gives their count in all. */
  private checkMemory(): number {
    const kills = countOomKills();
    if (kills > this.oomKills) this.channel.event({ event: "oom" });
    this.oomKills = kills;
    return kills;
  }

  private log(level: "info" | "warn" | "error", message: string): void {
    this.channel.event({ event: "log", level, message });
  }
}

function refused(code: AgentErrorCode, message: string): Failure {
  return new Failure(code, message);
}

function residentBytes(): number {
  return Number(readText("/proc/self/statm").split(" ")[1]) * PAGE_SIZE;
}
