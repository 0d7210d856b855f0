import type { Socket } from "node:net";
import {
  Channel,
  FrameType,
  PROTOCOL_VERSION,
  streamOf,
  type AgentEvent,
  type Hello,
  type OperationName,
  type Operations,
} from "../../../protocol/index.js";
import { Unavailable } from "../../errors.js";
import { AgentFailure } from "../agent-failure.js";
import type { AgentClient, InputStream, OutputSink } from "../index.js";
import { FloodGuard } from "./flood-guard.js";
import { FrameReader, type Frame } from "./frame-reader.js";
import { FrameWriter } from "./frame-writer.js";
import { StdinStream } from "./input-stream.js";
import { LogLimiter } from "./log-limiter.js";
import { MessageAssembler } from "./message-assembler.js";
import { checkEvent, checkResponse, checkResult } from "./messages.js";
import { OutputStream } from "./output-stream.js";
import { ProtocolError } from "./protocol-error.js";
import { Resync } from "./resync.js";

/** Requests that may wait for a guest that does not read, in bytes. */
const MAX_BACKLOG = 16 * 1024 * 1024;
/** Events that may come before anybody listens. */
const MAX_EARLY_EVENTS = 1024;

interface PendingRequest {
  op: OperationName;
  /** Takes the unchecked result. @throws {ProtocolError} */
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
}

/**
 * The host's end of the channel over a connected socket. What it keeps for a guest is bounded: one
 * frame, one message of each type, and per opened stream what the window allows.
 */
export class SocketAgentClient implements AgentClient {
  readonly hello: Promise<Hello>;
  readonly closed: Promise<string>;

  readonly #peer: "fresh" | "restored" | "running";
  readonly #socket: Socket;
  readonly #writer: FrameWriter;
  readonly #reader = new FrameReader((frame) => this.#receive(frame));
  readonly #responses = new MessageAssembler();
  readonly #events = new MessageAssembler();
  readonly #logs = new LogLimiter();
  readonly #flood = new FloodGuard();
  /** Set until the agent has answered our Sync. */
  #resync: Resync | undefined;
  /** What is to be written once the channel is in step. */
  #held: (() => void)[] = [];

  #resolveHello!: (hello: Hello) => void;
  #rejectHello!: (error: Error) => void;
  #helloSeen = false;
  #resolveClosed!: (reason: string) => void;
  #closedWith: Unavailable | undefined;

  #nextId = 1;
  readonly #pending = new Map<number, PendingRequest>();
  /** Processes the guest may speak of: begun by us or told by `hello`, and not released. */
  readonly #processes = new Set<number>();
  /** Those of them that an earlier daemon began. */
  readonly #inherited = new Set<number>();
  readonly #exited = new Set<number>();
  /** Those whose exit event came over this connection. */
  readonly #exitTold = new Set<number>();
  readonly #outputs = new Map<number, OutputStream>();
  readonly #inputs = new Map<number, StdinStream>();
  /** Acks of stdin streams that came after a Sync, before `input` was called. */
  readonly #earlyAcks = new Map<number, number>();
  readonly #unsentAcks = new Set<number>();
  #ackScheduled = false;

  #listeners: ((event: AgentEvent) => void)[] = [];
  #earlyEvents: AgentEvent[] = [];

  /**
   * @param socket connected to the agent's port; the client owns it from now on
   * @param peer `fresh`: no host was connected to this machine before, and its agent will say hello;
   *   `restored`: the agent said hello before the machine was saved, and is asked; `running`: a host may
   *   have been connected, and have gone in the middle of a frame
   */
  constructor(socket: Socket, peer: "fresh" | "restored" | "running") {
    this.#peer = peer;
    this.hello = new Promise((resolve, reject) => {
      this.#resolveHello = resolve;
      this.#rejectHello = reject;
    });
    this.hello.catch(() => undefined);
    this.closed = new Promise((resolve) => (this.#resolveClosed = resolve));
    this.#socket = socket;
    this.#writer = new FrameWriter(socket);
    socket.on("data", (chunk: Buffer) => this.#guard(() => this.#read(chunk)));
    socket.on("drain", () => this.#guard(() => this.#pump()));
    socket.on("error", (error) =>
      this.close(`the machine's end of the channel is gone (${error.message})`),
    );
    socket.on("close", () =>
      this.close("the machine's end of the channel is gone"),
    );
    if (peer === "running") this.#synchronize();
    if (peer === "restored") this.#askHello();
  }

  request<Op extends OperationName>(
    op: Op,
    args: Operations[Op]["args"],
  ): Promise<Operations[Op]["result"]> {
    if (this.#closedWith) return Promise.reject(this.#closedWith);
    if (this.#writer.backlog > MAX_BACKLOG) {
      return Promise.reject(
        new Unavailable("the guest's agent does not take requests"),
      );
    }
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, {
        op,
        resolve: (result) => {
          const checked = checkResult(op, result);
          if (op === "release") this.#forget(processOf(args));
          resolve(checked);
        },
        reject: (error) => {
          if (startsProcess(op)) this.#forget(processOf(args));
          reject(error);
        },
      });
      if (startsProcess(op)) this.#processes.add(processOf(args));
      this.#whenInStep(() => {
        try {
          this.#writer.message(FrameType.Request, { id, op, args });
        } catch (error) {
          const pending = this.#pending.get(id);
          this.#pending.delete(id);
          pending?.reject(error as Error);
        }
      });
    });
  }

  onEvent(listener: (event: AgentEvent) => void): () => void {
    this.#listeners.push(listener);
    const early = this.#earlyEvents;
    this.#earlyEvents = [];
    for (const event of early) this.#guard(() => listener(event));
    return () => {
      this.#listeners = this.#listeners.filter((other) => other !== listener);
    };
  }

  output(
    process: number,
    channel: typeof Channel.Stdout | typeof Channel.Stderr,
    sink: OutputSink,
    from?: number,
  ): void {
    const number = streamOf(process, channel);
    const stream = new OutputStream(sink, from ?? 0, () =>
      this.#acknowledgeLater(number),
    );
    this.#outputs.set(number, stream);
    // After a Sync a stream is silent until it is told from where to go on.
    if (from !== undefined) this.#acknowledgeLater(number);
  }

  input(process: number, from?: number): InputStream {
    const number = streamOf(process, Channel.Stdin);
    // How far an earlier daemon's input was consumed, only the agent knows.
    const known = this.#inherited.has(process)
      ? this.#earlyAcks.get(number)
      : 0;
    this.#earlyAcks.delete(number);
    const stream = new StdinStream(
      {
        writable: () => this.#writer.writable && !this.#resync,
        data: (offset, payload) =>
          this.#writer.frame(FrameType.Data, number, offset, payload),
        eof: (offset) => this.#writer.frame(FrameType.Eof, number, offset),
      },
      from ?? 0,
      known === undefined ? undefined : Math.min(known, from ?? 0),
    );
    if (this.#closedWith) stream.fail(this.#closedWith);
    else if (this.#exited.has(process)) stream.discard();
    this.#inputs.set(number, stream);
    return stream;
  }

  /** Closes the channel for good. */
  close(reason: string): void {
    if (this.#closedWith) return;
    const error = new Unavailable(
      `the channel to the guest's agent is closed: ${reason}`,
    );
    this.#closedWith = error;
    this.#socket.destroy();
    this.#rejectHello(error);
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
    for (const input of this.#inputs.values()) input.fail(error);
    this.#inputs.clear();
    this.#outputs.clear();
    this.#earlyAcks.clear();
    this.#held = [];
    this.#resolveClosed(reason);
  }

  /** Whatever a guest's bytes lead to, it ends here: the channel closes, the daemon goes on. */
  #guard(action: () => void): void {
    if (this.#closedWith) return;
    try {
      action();
    } catch (error) {
      if (error instanceof ProtocolError) {
        this.close(`the guest broke the protocol: ${error.message}`);
      } else {
        const detail = error instanceof Error ? error.stack : String(error);
        this.close(`a receiver failed: ${detail ?? "unknown"}`);
      }
    }
  }

  #synchronize(): void {
    this.#resync = new Resync();
    this.#socket.write(this.#resync.opening);
    this.#askHello();
  }

  /** The first request in step; what was asked before it is answered only waits behind it. */
  #askHello(): void {
    this.request("hello", {}).then(
      () => undefined,
      (error: Error) => this.close(error.message),
    );
  }

  #whenInStep(action: () => void): void {
    if (this.#resync) this.#held.push(action);
    else action();
  }

  #read(chunk: Buffer): void {
    if (!this.#resync) {
      this.#reader.push(chunk);
      return;
    }
    const rest = this.#resync.push(chunk);
    if (!rest) return;
    this.#resync = undefined;
    const held = this.#held;
    this.#held = [];
    for (const action of held) action();
    this.#pump();
    this.#reader.push(rest);
  }

  #receive(frame: Frame): void {
    if (this.#closedWith) return;
    switch (frame.type) {
      case FrameType.Response:
        return this.#receiveResponse(
          this.#responses.push(frame.payload, more(frame)),
        );
      case FrameType.Event:
        // A small frame costs more than its payload.
        this.#flood.count(frame.length + 64);
        return this.#receiveEvent(
          this.#events.push(frame.payload, more(frame)),
        );
      case FrameType.Data:
        return this.#output(frame).data(frame.offset, frame.payload);
      case FrameType.Eof:
        expectNoPayload(frame);
        return this.#output(frame).eof(frame.offset);
      case FrameType.Ack:
        expectNoPayload(frame);
        return this.#receiveAck(frame.stream, frame.offset);
      default:
        throw new ProtocolError(`a frame of the unknown type ${frame.type}`);
    }
  }

  #receiveResponse(message: unknown): void {
    if (message === undefined) return;
    const response = checkResponse(message);
    const pending = this.#pending.get(response.id);
    if (!pending) {
      throw new ProtocolError(
        `an answer to the request ${response.id}, which does not wait for one`,
      );
    }
    if (response.ok) {
      if (pending.op === "hello" && !this.#helloSeen) {
        this.#receiveHello(checkResult("hello", response.result));
      }
      pending.resolve(response.result);
    } else {
      pending.reject(new AgentFailure(response.error));
    }
    this.#pending.delete(response.id);
  }

  #receiveHello(hello: Hello): void {
    if (hello.protocol !== PROTOCOL_VERSION) {
      throw new ProtocolError(
        `the agent speaks version ${hello.protocol} of the protocol, this daemon ${PROTOCOL_VERSION}`,
      );
    }
    this.#helloSeen = true;
    for (const { process, exit } of hello.processes) {
      this.#processes.add(process);
      this.#inherited.add(process);
      if (exit) this.#markExited(process);
    }
    this.#resolveHello(hello);
  }

  #receiveEvent(message: unknown): void {
    if (message === undefined) return;
    const event = checkEvent(message);
    switch (event.event) {
      case "hello":
        if (this.#helloSeen) throw new ProtocolError("a second hello");
        this.#receiveHello(event.hello);
        break;
      case "exit":
        // Between Sync and `hello`, which will tell of it.
        if (this.#peer === "running" && !this.#helloSeen) return;
        if (!this.#processes.has(event.process)) {
          throw new ProtocolError(
            `the exit of the unknown process ${event.process}`,
          );
        }
        if (this.#exitTold.has(event.process)) {
          throw new ProtocolError(`process ${event.process} exits twice`);
        }
        this.#exitTold.add(event.process);
        this.#markExited(event.process);
        break;
      case "log":
        if (!this.#logs.admit(event)) return;
        break;
      case "oom":
        break;
    }
    this.#emit(event);
  }

  #emit(event: AgentEvent): void {
    if (this.#listeners.length > 0) {
      for (const listener of this.#listeners) listener(event);
    } else if (this.#earlyEvents.length < MAX_EARLY_EVENTS) {
      this.#earlyEvents.push(event);
    } else {
      throw new ProtocolError("a flood of events");
    }
  }

  #markExited(process: number): void {
    this.#exited.add(process);
    this.#inputs.get(streamOf(process, Channel.Stdin))?.discard();
  }

  #output(frame: Frame): OutputStream {
    const stream = this.#outputs.get(frame.stream);
    if (!stream) {
      throw new ProtocolError(
        `a frame of stream ${frame.stream}, which is not open`,
      );
    }
    return stream;
  }

  #receiveAck(stream: number, offset: number): void {
    const input = this.#inputs.get(stream);
    if (input) {
      input.acknowledge(offset);
      return;
    }
    // Unasked right after a Sync; otherwise for a stdin nobody has opened.
    if (stream % 4 !== Channel.Stdin || !Number.isSafeInteger(offset)) {
      throw new ProtocolError(`an ack of stream ${stream}, which is not open`);
    }
    this.#earlyAcks.set(stream, offset);
    if (this.#earlyAcks.size > MAX_EARLY_EVENTS) {
      throw new ProtocolError("acks of streams that are not open");
    }
  }

  /** Acks of one turn of the event loop go out together, one a stream. */
  #acknowledgeLater(stream: number): void {
    this.#unsentAcks.add(stream);
    if (this.#ackScheduled) return;
    this.#ackScheduled = true;
    queueMicrotask(() => {
      this.#ackScheduled = false;
      this.#guard(() => this.#sendAcks());
    });
  }

  #sendAcks(): void {
    if (this.#resync) return;
    for (const number of this.#unsentAcks) {
      if (!this.#writer.writable) return;
      this.#unsentAcks.delete(number);
      const stream = this.#outputs.get(number);
      if (stream) {
        this.#writer.frame(FrameType.Ack, number, stream.acknowledged);
      }
    }
  }

  /** The socket takes bytes again: acknowledgements first, then each stdin in turn. */
  #pump(): void {
    this.#sendAcks();
    for (const [number, input] of [...this.#inputs]) {
      if (!this.#writer.writable) return;
      input.pump();
      this.#inputs.delete(number);
      this.#inputs.set(number, input);
    }
  }

  #forget(process: number): void {
    this.#processes.delete(process);
    this.#inherited.delete(process);
    this.#exited.delete(process);
    this.#exitTold.delete(process);
    for (const channel of [Channel.Stdout, Channel.Stderr]) {
      this.#outputs.delete(streamOf(process, channel));
    }
    const stdin = streamOf(process, Channel.Stdin);
    this.#inputs.get(stdin)?.discard();
    this.#inputs.delete(stdin);
    this.#earlyAcks.delete(stdin);
  }
}

function more(frame: Frame): boolean {
  return frame.stream === 1;
}

function expectNoPayload(frame: Frame): void {
  if (frame.length > 0) {
    throw new ProtocolError(`a frame of type ${frame.type} with a payload`);
  }
}

function startsProcess(op: OperationName): boolean {
  return op === "spawn" || op === "files";
}

function processOf(args: object): number {
  return (args as { process: number }).process;
}
