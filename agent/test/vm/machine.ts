/**
 * A virtual machine for the agent's tests: QEMU with the real kernel and initramfs, and a plain host's
 * end of the channel, separate from the daemon's so that each side is tested against the protocol.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { createInterface } from "node:readline";
import {
  Channel,
  END_BYTE,
  FrameType,
  HEADER_SIZE,
  MAX_PAYLOAD,
  PORT_NAME,
  SYNC_MAGIC,
  SYNC_PADDING,
  WINDOW,
  decodeHeader,
  encodeHeader,
  streamOf,
  type AgentError,
  type AgentEvent,
  type Hello,
  type OperationName,
  type Operations,
  type ProcessExit,
  type Response,
} from "../../../protocol/index.js";

/** The agent's refusal. */
export class Refused extends Error {
  constructor(readonly error: AgentError) {
    super(`${error.code}: ${error.message}`);
  }
}

/** What came of one output stream. */
export interface Received {
  chunks: Buffer[];
  offset: number;
  ended: boolean;
}

export interface MachineOptions {
  directory: string;
  kernel: string;
  initramfs: string;
  memoryMb?: number;
  disks: { path: string; readonly: boolean }[];
  nics?: number;
  /** The guest's clock counts instructions, one a nanosecond: figures that no load disturbs. */
  countInstructions?: boolean;
  /** It waits for `resume`. */
  saved?: boolean;
}

export class TestMachine {
  private socket!: net.Socket;
  private buffer: Buffer = Buffer.alloc(0);
  private nextId = 1;
  private readonly waiting = new Map<number, (response: Response) => void>();
  private readonly outputs = new Map<number, Received>();
  private readonly exits = new Map<number, ProcessExit>();
  readonly events: AgentEvent[] = [];
  private wake: (() => void)[] = [];
  private syncing: Buffer | undefined;
  private readonly socketPath: string;
  private readonly qmpPath: string;
  readonly qemu: ChildProcess;
  readonly consolePath: string;
  /** Streams that are not acknowledged, to see what stalls. */
  readonly held = new Set<number>();
  readonly startedAt = performance.now();

  constructor(private readonly options: MachineOptions) {
    this.socketPath = path.join(options.directory, "agent.sock");
    this.qmpPath = path.join(options.directory, "qmp.sock");
    this.consolePath = path.join(options.directory, "console.log");
    this.qemu = spawn("qemu-system-x86_64", this.arguments(), {
      stdio: ["ignore", "inherit", "inherit"],
    });
    this.qemu.on("exit", () => this.notify());
  }

  private arguments(): string[] {
    const { options } = this;
    const args = [
      ...["-M", "microvm,acpi=off,x-option-roms=off,rtc=on,isa-serial=off"],
      ...[
        "-accel",
        "tcg",
        "-cpu",
        "max,-erms,-fsrm",
        "-m",
        String(options.memoryMb ?? 256),
      ],
      ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
      ...["-kernel", options.kernel, "-initrd", options.initramfs],
      ...["-append", kernelParameters(options)],
      ...(options.countInstructions ? ["-icount", "shift=0,sleep=off"] : []),
      ...(options.saved ? ["-incoming", "defer"] : []),
      ...["-qmp", `unix:${this.qmpPath},server=on,wait=off`],
      ...["-device", "virtio-serial-device"],
      ...["-chardev", `file,id=console,path=${this.consolePath}`],
      ...["-device", "virtconsole,chardev=console"],
      ...[
        "-chardev",
        `socket,id=agent,path=${this.socketPath},server=on,wait=off`,
      ],
      ...["-device", `virtserialport,chardev=agent,name=${PORT_NAME}`],
    ];
    options.disks.forEach(({ path: file, readonly }, i) => {
      const flags = readonly ? ",readonly=on" : "";
      args.push(
        "-drive",
        `if=none,id=disk${i},format=raw,file=${file}${flags}`,
      );
      args.push("-device", `virtio-blk-device,id=slot${i},drive=disk${i}`);
    });
    for (let i = 0; i < (options.nics ?? 0); i++) {
      args.push("-netdev", `user,id=net${i},restrict=on`);
      args.push(
        "-device",
        `virtio-net-device,netdev=net${i},mac=52:54:00:00:00:0${i}`,
      );
    }
    return args;
  }

  /** Connects for the first time, and gives the hello event. */
  async connect(): Promise<Hello> {
    await this.open();
    return this.until(() => {
      const event = this.events.find(
        (candidate) => candidate.event === "hello",
      );
      return event?.event === "hello" ? event.hello : undefined;
    }, 120_000);
  }

  /** Stands still, and is saved to a file. */
  async save(file: string): Promise<void> {
    await this.qmp([
      { execute: "stop" },
      { execute: "migrate", arguments: { uri: `exec:cat > ${file}` } },
    ]);
    for (;;) {
      const [migration] = (await this.qmp([{ execute: "query-migrate" }])) as [
        { status: string },
      ];
      if (migration.status === "completed") return;
      if (migration.status === "failed") throw new Error("cannot be saved");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Goes on as the machine that was saved to a file. */
  async resume(saved: string): Promise<Hello> {
    await this.qmp([
      { execute: "migrate-incoming", arguments: { uri: `exec:cat ${saved}` } },
    ]);
    for (;;) {
      const [state] = (await this.qmp([{ execute: "query-status" }])) as [
        { status: string },
      ];
      if (state.status !== "inmigrate") break;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await this.qmp([{ execute: "cont" }]);
    return this.reconnect();
  }

  /** Goes away, as a killed daemon does; `stump` is what it was in the middle of writing. */
  async disconnect(stump?: Buffer): Promise<void> {
    if (stump)
      await new Promise((resolve) => this.socket.write(stump, resolve));
    this.socket.destroy();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }

  /** Comes back, as a restarted daemon does, with what it had consumed of each stream. */
  async reconnect(): Promise<Hello> {
    this.buffer = Buffer.alloc(0);
    this.waiting.clear();
    const nonce = randomBytes(16);
    this.syncing = Buffer.concat([Buffer.from(SYNC_MAGIC), nonce]);
    await this.open();
    this.socket.write(Buffer.alloc(SYNC_PADDING));
    this.frame(FrameType.Sync, 0, 0, nonce);
    const hello = await this.request("hello", {});
    for (const { process, exit } of hello.processes)
      if (exit) this.exits.set(process, exit);
    for (const [stream, { offset }] of this.outputs)
      this.frame(FrameType.Ack, stream, offset);
    return hello;
  }

  async request<Op extends OperationName>(
    op: Op,
    args: Operations[Op]["args"],
  ): Promise<Operations[Op]["result"]> {
    const id = this.nextId++;
    const answer = this.answer(id);
    this.message(JSON.stringify({ id, op, args }));
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`${op}: no answer: ${this.console()}`)),
        30_000,
      );
    });
    const response = await Promise.race([answer, timeout]).finally(() =>
      clearTimeout(timer),
    );
    if (!response.ok) throw new Refused(response.error);
    return response.result as Operations[Op]["result"];
  }

  /** The answer to the request of that number. */
  answer(id: number): Promise<Response> {
    return new Promise((resolve) => this.waiting.set(id, resolve));
  }

  /** A request's text as it is, in as many frames as it takes. */
  message(text: string): void {
    const bytes = Buffer.from(text);
    for (let at = 0; at === 0 || at < bytes.length; at += MAX_PAYLOAD) {
      const piece = bytes.subarray(at, at + MAX_PAYLOAD);
      this.frame(
        FrameType.Request,
        at + piece.length < bytes.length ? 1 : 0,
        0,
        piece,
      );
    }
  }

  frame(
    type: FrameType,
    stream: number,
    offset: number,
    payload: Buffer = Buffer.alloc(0),
  ): void {
    this.socket.write(encodeFrame(type, stream, offset, payload));
  }

  raw(bytes: Buffer): void {
    this.socket.write(bytes);
  }

  /** Sends a process its whole stdin, within the window, and its end. */
  feed(process: number, bytes: Buffer): void {
    const stream = streamOf(process, Channel.Stdin);
    let sent = 0;
    const pump = () => {
      if (this.socket.destroyed) return;
      const limit = (this.stdinAcks.get(stream) ?? 0) + WINDOW;
      while (sent < bytes.length && sent < limit) {
        const end = Math.min(bytes.length, limit, sent + MAX_PAYLOAD);
        this.frame(FrameType.Data, stream, sent, bytes.subarray(sent, end));
        sent = end;
      }
      if (sent === bytes.length) this.frame(FrameType.Eof, stream, sent);
      else this.wake.push(pump);
    };
    pump();
  }

  /** Opens the host's side of a new process's output stream. */
  output(process: number, channel: Channel): Received {
    this.exits.delete(process);
    const received: Received = { chunks: [], offset: 0, ended: false };
    this.outputs.set(streamOf(process, channel), received);
    return received;
  }

  exit(process: number): Promise<ProcessExit> {
    return this.until(() => this.exits.get(process));
  }

  /** Resolves when `probe` gives something; it is asked after each thing that arrives. */
  async until<T>(probe: () => T | undefined, timeout = 30_000): Promise<T> {
    const deadline = Date.now() + timeout;
    for (;;) {
      const value = probe();
      if (value !== undefined && value !== false) return value;
      if (this.qemu.exitCode !== null || this.qemu.signalCode)
        throw new Error(`the machine ended: ${this.console()}`);
      if (Date.now() > deadline)
        throw new Error(`timed out: ${this.console()}`);
      await new Promise<void>((resolve) => {
        this.wake.push(resolve);
        setTimeout(resolve, 200);
      });
    }
  }

  console(): string {
    return fs.existsSync(this.consolePath)
      ? fs.readFileSync(this.consolePath, "utf8").slice(-2000)
      : "";
  }

  /** Puts other files behind the disks' slots. */
  async insertDisks(
    disks: { path: string; readonly: boolean }[],
  ): Promise<void> {
    const id = this.nextId++;
    const nodes = disks.map(({ path: filename, readonly }, i) => ({
      driver: "raw",
      "node-name": `node${id}-${i}`,
      "read-only": readonly,
      file: { driver: "file", filename, "read-only": readonly },
    }));
    await this.qmp(
      nodes.flatMap((node, i) => [
        { execute: "blockdev-add", arguments: node },
        {
          execute: "qom-set",
          arguments: {
            path: `/machine/peripheral/slot${i}`,
            property: "drive",
            value: node["node-name"],
          },
        },
      ]),
    );
  }

  /** Commands for QEMU, one after the other; gives what they returned. */
  async qmp(
    commands: { execute: string; arguments?: object }[],
  ): Promise<unknown[]> {
    const socket = await connect(this.qmpPath);
    try {
      const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
      await lines.next();
      const results: unknown[] = [];
      for (const command of [{ execute: "qmp_capabilities" }, ...commands]) {
        socket.write(JSON.stringify(command));
        for (;;) {
          const { value } = (await lines.next()) as { value?: string };
          const answer = JSON.parse(value ?? '{"error":"the end"}') as {
            return?: unknown;
            error?: unknown;
          };
          if (answer.error)
            throw new Error(
              `${JSON.stringify(command)}: ${JSON.stringify(answer.error)}`,
            );
          if (!("return" in answer)) continue;
          results.push(answer.return);
          break;
        }
      }
      return results.slice(1);
    } finally {
      socket.destroy();
    }
  }

  async stop(): Promise<void> {
    this.socket?.destroy();
    if (this.qemu.exitCode !== null || this.qemu.signalCode) return;
    const gone = new Promise((resolve) => this.qemu.once("exit", resolve));
    this.qemu.kill("SIGKILL");
    await gone;
  }

  private async open(): Promise<void> {
    this.socket = await connect(this.socketPath);
    this.socket.on("error", () => undefined);
    this.socket.on("data", (chunk: Buffer) => this.receive(chunk));
  }

  private receive(chunk: Buffer): void {
    this.buffer =
      this.buffer.length === 0 ? chunk : Buffer.concat([this.buffer, chunk]);
    if (this.syncing) {
      const at = this.buffer.indexOf(this.syncing);
      if (at < 0) return;
      this.buffer = this.buffer.subarray(at + this.syncing.length);
      this.syncing = undefined;
    }
    while (this.buffer.length >= HEADER_SIZE) {
      const view = new DataView(
        this.buffer.buffer,
        this.buffer.byteOffset,
        this.buffer.length,
      );
      const header = decodeHeader(view, 0);
      const size = HEADER_SIZE + header.length + 1;
      if (header.length > MAX_PAYLOAD) throw new Error("frame too long");
      if (this.buffer.length < size) break;
      if (this.buffer[size - 1] !== END_BYTE) throw new Error("wrong end byte");
      const payload = this.buffer.subarray(HEADER_SIZE, size - 1);
      this.buffer = this.buffer.subarray(size);
      this.handle(
        header.type,
        header.stream,
        header.offset,
        Buffer.from(payload),
      );
    }
    this.notify();
  }

  private pieces: Buffer[] = [];
  readonly stdinAcks = new Map<number, number>();

  private handle(
    type: number,
    stream: number,
    offset: number,
    payload: Buffer,
  ): void {
    const output = this.outputs.get(stream);
    if (type === FrameType.Response || type === FrameType.Event) {
      this.pieces.push(payload);
      if (stream === 1) return;
      const message = JSON.parse(Buffer.concat(this.pieces).toString()) as
        Response | AgentEvent;
      this.pieces = [];
      if ("event" in message) {
        this.events.push(message);
        if (message.event === "exit")
          this.exits.set(message.process, message.exit);
      } else {
        this.waiting.get(message.id)?.(message);
        this.waiting.delete(message.id);
      }
    } else if (type === FrameType.Ack) {
      this.stdinAcks.set(stream, offset);
    } else if (!output) {
      throw new Error(`frame ${type} of unknown stream ${stream}`);
    } else if (type === FrameType.Data) {
      if (offset !== output.offset)
        throw new Error(`data at ${offset}, expected ${output.offset}`);
      output.chunks.push(payload);
      output.offset += payload.length;
      if (!this.held.has(stream))
        this.frame(FrameType.Ack, stream, output.offset);
    } else if (type === FrameType.Eof) {
      if (offset !== output.offset)
        throw new Error(`end at ${offset}, expected ${output.offset}`);
      output.ended = true;
    } else {
      throw new Error(`frame of type ${type}`);
    }
  }

  private notify(): void {
    const wake = this.wake;
    this.wake = [];
    for (const run of wake) run();
  }
}

/** Connects to a socket that QEMU may not have made yet. */
async function connect(path: string): Promise<net.Socket> {
  for (let tries = 0; ; tries++) {
    const socket = net.connect(path);
    try {
      await once(socket, "connect");
      return socket;
    } catch (error) {
      if (tries > 500) throw error;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

export function encodeFrame(
  type: FrameType,
  stream: number,
  offset: number,
  payload: Buffer,
): Buffer {
  const bytes = Buffer.alloc(HEADER_SIZE + payload.length + 1);
  encodeHeader(
    new DataView(bytes.buffer, bytes.byteOffset),
    0,
    payload.length,
    type,
    stream,
    offset,
  );
  payload.copy(bytes, HEADER_SIZE);
  bytes[bytes.length - 1] = END_BYTE;
  return bytes;
}

/** The clock of a guest under TCG is the host's TSC; calibration would fail on a busy host. */
function kernelParameters(options: MachineOptions): string {
  const mhz = /^cpu MHz\s*:\s*([\d.]+)$/m.exec(
    fs.readFileSync("/proc/cpuinfo", "utf8"),
  )?.[1];
  const khz = options.countInstructions ? 1e6 : Math.round(Number(mhz) * 1000);
  const tsc = khz ? ` tsc_early_khz=${khz}` : "";
  return `console=hvc0 quiet panic=-1 reboot=t no_timer_check tsc=reliable${tsc}`;
}

export { Channel };
