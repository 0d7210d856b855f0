/** The agent: carries out the host's requests and tells what happens to the container. */
import {
  PROTOCOL_VERSION,
  type AgentErrorCode,
  type Channel as StreamChannel,
  type Hello,
  type Operations,
  type Request,
} from "../../protocol/index.js";
import { freeze, isFrozen, killAll, listPids, setLimits } from "./cgroup.js";
import { Channel, type Receiver } from "./channel.js";
import { CLOCK_BOOTTIME, CLOCK_MONOTONIC } from "./constants.js";
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
import { readText } from "./files.js";
import { Loading } from "./loading.js";
import { EventLoop } from "./loop.js";
import { listProcesses } from "./process-list.js";
import { MemoryWatch } from "./memory-watch.js";
import type { Process } from "./process.js";
import { Processes, type Ended } from "./processes.js";
import { checkRequest, parseRequest } from "./requests.js";
import { rewriteFiles, unmountAll } from "./rootfs.js";
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
  private readonly processes: Processes;
  private readonly memory: MemoryWatch;
  private atWork = false;
  private prepared: Prepared | undefined;
  private container: Container | undefined;
  private setupBegun = false;
  /** Has been given entropy of its own. */
  private seeded = false;
  private loading: Loading | undefined;
  /** Counts connections: answers to requests of an earlier one are not sent. */
  private connection = 0;
  private readyMs = 0;

  constructor(port: number) {
    this.channel = new Channel(port, this.loop, this);
    this.memory = new MemoryWatch(this.loop, this.channel);
    this.processes = new Processes({
      loop: this.loop,
      channel: this.channel,
      container: () => this.requireContainer(),
      oomKilled: () => this.memory.check() > 0,
      onOther: (ended) => this.endLoading(ended),
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
    this.processes.sync();
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
        return this.processes.spawn(request.args, text);
      case "signal":
        return this.processes.signal(request.args);
      case "resize":
        this.processes
          .find(request.args.process)
          .resize(request.args.rows, request.args.columns);
        return {};
      case "release":
        return this.processes.release(request.args.process);
      case "processes":
        return { processes: listProcesses() };
      case "files":
        return this.processes.workOnFiles(request.args);
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
      processes: this.processes.states,
    };
  }

  private prepare(): void {
    if (this.prepared || this.setupBegun) return;
    if (!this.atWork) {
      protectSelf();
      mountWorkplace();
      this.processes.prepare();
      this.atWork = true;
    }
    this.prepared = prepareContainer();
    this.memory.begin();
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
    if (!container.asFurnished) this.processes.endFirst();
    if (args.privileged) this.memory.begin();
    return result;
  }

  /** Whatever fails here leaves a machine that cannot be set up. */
  private async reset(): Promise<Record<string, never>> {
    const container = this.requireContainer();
    if (!this.processes.none || listPids().length > 0)
      throw refused("invalid", "processes of this machine are still there");
    this.container = undefined;
    this.processes.forgetInit();
    this.memory.forget();
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
    this.processes.makeFirst(args, this.prepared.cgroup);
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

  private async shutDown(): Promise<Record<string, never>> {
    const { container, loop } = this;
    if (container) {
      this.processes.abandonWork();
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

  private withStream(
    stream: number,
    use: (process: Process, channel: StreamChannel) => void,
  ): void {
    try {
      this.processes.withStream(stream, use);
    } catch (error) {
      this.log("error", `stream ${stream}: ${describe(error)}`);
    }
  }

  private endLoading({ pid, code, signal }: Ended): void {
    if (pid !== this.loading?.pid) return;
    this.loading.ended({ code, signal });
    this.loading = undefined;
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
