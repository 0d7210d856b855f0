/**
 * The agent's end of the host–agent channel: frames in, frames out, and what Sync asks for. Output is
 * collected in one buffer that is filled by whoever has something to say and written when the port
 * takes it.
 */
import {
  END_BYTE,
  FrameType,
  HEADER_SIZE,
  MAX_MESSAGE,
  MAX_PAYLOAD,
  NONCE_SIZE,
  SYNC_MAGIC,
  encodeHeader,
  type AgentEvent,
  type FrameHeader,
  type Response,
} from "../../protocol/index.js";
import { EPOLLET, EPOLLIN, EPOLLOUT } from "./constants.js";
import { FrameReader } from "./frame-reader.js";
import type { EventLoop } from "./loop.js";

/** What a source did when asked for a frame: `full` found no room for the one it has. */
export type Sending = "sent" | "idle" | "full";

/** Has frames to send now and then: a stream. */
export interface Source {
  /** Puts at most one frame on the channel. */
  send(channel: Channel): Sending;
}

/** Hears what the host sends. */
export interface Receiver {
  request(text: string): void;
  data(
    stream: number,
    offset: number,
    bytes: ArrayBuffer,
    at: number,
    length: number,
  ): void;
  ack(stream: number, offset: number): void;
  eof(stream: number, offset: number): void;
  /** A new host connection has begun; what was queued for the old one is gone. */
  sync(): void;
}

/**
 * Frames are collected up to this size: the kernel passes a port's bytes on in pieces of at most 32 KiB,
 * and a few bytes more would be a piece of their own.
 */
const OUT_SIZE = 64 * 1024;
/** Messages are queued while the host is away; of mere logs no more than so many. */
const MAX_QUEUED_LOGS = 64;
/** Bytes read from the port in a round, so that a flood of input does not stall the rest. */
const READ_ROUND = 128 * 1024;
/** A Data frame smaller than this waits for an empty buffer, unless it has all there is. */
const SMALL = 8 * 1024;

interface Message {
  type: FrameType;
  bytes: ArrayBuffer;
  sent: number;
}

export class Channel {
  private readonly reader: FrameReader;
  private readonly out = sys.allocate(OUT_SIZE);
  private readonly outView = new DataView(this.out);
  private outBegin = 0;
  private outEnd = 0;
  private messages: Message[] = [];
  private ready: Source[] = [];
  private canRead = true;
  private canWrite = true;
  private waitsForRoom = false;
  /** Pieces of a request that is longer than a frame. */
  private pieces: ArrayBuffer[] = [];
  private piecesSize = 0;

  constructor(
    private readonly port: number,
    private readonly loop: EventLoop,
    private readonly receiver: Receiver,
  ) {
    this.reader = new FrameReader(
      (size) => sys.allocate(size),
      (header, at) => this.handle(header, at),
      (message) =>
        this.event({
          event: "log",
          level: "error",
          message: `channel: ${message}`,
        }),
    );
    // Edge-triggered: while no host is connected the port reports a hang-up all the time. Room to write
    // is only waited for when there was none: each buffer the host takes would wake us otherwise.
    loop.add(port, EPOLLIN | EPOLLET, () => {
      this.canRead = this.canWrite = true;
      if (this.waitsForRoom) this.waitForRoom(false);
    });
  }

  /** Whether there is something to do without waiting for an event. */
  get busy(): boolean {
    return this.canRead || (this.canWrite && this.hasOutput());
  }

  /** Reads and writes as much as the port takes in a round. */
  round(): void {
    this.receive();
    this.flush();
  }

  respond(response: Response): void {
    if (!response.ok) return this.queue(FrameType.Response, response);
    // The engine takes longer to do the same with an object in an object.
    const result = JSON.stringify(response.result);
    const text = `{"id":${response.id},"ok":true,"result":${result}}`;
    this.queueText(FrameType.Response, text);
  }

  event(event: AgentEvent): void {
    if (event.event === "log" && this.messages.length >= MAX_QUEUED_LOGS)
      return;
    this.queue(FrameType.Event, event);
  }

  /** Says that `source` may have frames; it is asked until it has none. */
  wake(source: Source): void {
    if (!this.ready.includes(source)) this.ready.push(source);
  }

  /** Room for a Data frame's payload of up to `wanted` bytes; 0 when it should wait. */
  room(wanted: number): number {
    const free = this.out.byteLength - this.outEnd - HEADER_SIZE - 1;
    const room = Math.min(wanted, free, MAX_PAYLOAD);
    return room === wanted || room >= SMALL ? room : 0;
  }

  /**
   * Adds a frame with the payload at `at` of `bytes`; false when there is no room for it. What goes beyond the end
   * of `bytes` goes on at its beginning.
   */
  put(
    type: FrameType,
    stream: number,
    offset: number,
    bytes?: ArrayBuffer,
    at = 0,
    length = 0,
  ): boolean {
    if (this.outEnd + HEADER_SIZE + length + 1 > this.out.byteLength)
      return false;
    encodeHeader(this.outView, this.outEnd, length, type, stream, offset);
    this.outEnd += HEADER_SIZE;
    if (bytes && length > 0) {
      const piece = Math.min(length, bytes.byteLength - at);
      sys.copy(bytes, at, piece, this.out, this.outEnd);
      if (piece < length)
        sys.copy(bytes, 0, length - piece, this.out, this.outEnd + piece);
    }
    this.outEnd += length;
    this.outView.setUint8(this.outEnd++, END_BYTE);
    return true;
  }

  private waitForRoom(wait: boolean): void {
    this.waitsForRoom = wait;
    this.loop.change(this.port, EPOLLIN | EPOLLET | (wait ? EPOLLOUT : 0));
  }

  private hasOutput(): boolean {
    return (
      this.outEnd > this.outBegin ||
      this.messages.length > 0 ||
      this.ready.length > 0
    );
  }

  private queue(type: FrameType, message: Response | AgentEvent): void {
    this.queueText(type, JSON.stringify(message));
  }

  private queueText(type: FrameType, text: string): void {
    const bytes = sys.encode(text);
    if (bytes.byteLength > MAX_MESSAGE)
      throw new RangeError("message too long");
    this.messages.push({ type, bytes, sent: 0 });
  }

  private receive(): void {
    for (let total = 0; this.canRead && total < READ_ROUND;) {
      const { reader } = this;
      const { buffer, end, room } = reader;
      // A port gives a page at a time.
      const count = sys.readMany(this.port, buffer, end, room);
      // Nothing more there, or (0) no host: the port's next event says when to try again.
      if (count < room) this.canRead = false;
      if (count <= 0) return;
      total += count;
      reader.advance(count);
    }
  }

  private handle(header: FrameHeader, at: number): void {
    const { length, type, stream, offset } = header;
    const { buffer } = this.reader;
    switch (type) {
      case FrameType.Sync:
        if (length === NONCE_SIZE) this.sync(at);
        break;
      case FrameType.Request:
        this.request(stream === 1, at, length);
        break;
      case FrameType.Data:
        this.receiver.data(stream, offset, buffer, at, length);
        break;
      case FrameType.Ack:
        this.receiver.ack(stream, offset);
        break;
      case FrameType.Eof:
        this.receiver.eof(stream, offset);
        break;
      default:
        this.event({
          event: "log",
          level: "error",
          message: `channel: frame of unknown type ${type}`,
        });
    }
  }

  private request(continued: boolean, at: number, length: number): void {
    const { buffer } = this.reader;
    if (!continued && this.pieces.length === 0) {
      this.receiver.request(sys.decode(buffer, at, length));
      return;
    }
    this.piecesSize += length;
    if (this.piecesSize <= MAX_MESSAGE)
      this.pieces.push(buffer.slice(at, at + length));
    if (continued) return;
    const whole = new ArrayBuffer(Math.min(this.piecesSize, MAX_MESSAGE));
    let end = 0;
    for (const piece of this.pieces) {
      sys.copy(piece, 0, piece.byteLength, whole, end);
      end += piece.byteLength;
    }
    this.pieces = [];
    this.piecesSize = 0;
    this.receiver.request(sys.decode(whole, 0, end));
  }

  private sync(at: number): void {
    this.outBegin = this.outEnd = 0;
    this.messages = [];
    this.ready = [];
    this.pieces = [];
    this.piecesSize = 0;
    SYNC_MAGIC.forEach((byte, i) => this.outView.setUint8(i, byte));
    sys.copy(this.reader.buffer, at, NONCE_SIZE, this.out, SYNC_MAGIC.length);
    this.outEnd = SYNC_MAGIC.length + NONCE_SIZE;
    this.receiver.sync();
  }

  private flush(): void {
    for (let rounds = 0; this.canWrite && rounds < 8; rounds++) {
      this.fill();
      if (this.outEnd === this.outBegin) return;
      while (this.outBegin < this.outEnd) {
        const count = sys.write(
          this.port,
          this.out,
          this.outBegin,
          this.outEnd - this.outBegin,
        );
        if (count < 0) {
          this.canWrite = false;
          this.waitForRoom(true);
          return;
        }
        this.outBegin += count;
      }
      this.outBegin = this.outEnd = 0;
    }
  }

  /** Collects frames as long as there is room: messages first, then the streams in turn. */
  private fill(): void {
    if (this.outBegin > 0) return;
    let message: Message | undefined;
    while ((message = this.messages[0])) {
      const rest = message.bytes.byteLength - message.sent;
      const room = this.room(rest);
      if (room === 0) return;
      const more = room < rest ? 1 : 0;
      this.put(message.type, more, 0, message.bytes, message.sent, room);
      message.sent += room;
      if (!more) this.messages.shift();
    }
    let source: Source | undefined;
    while ((source = this.ready[0])) {
      const sending = source.send(this);
      if (sending === "full") return;
      this.ready.shift();
      if (sending === "sent") this.ready.push(source);
    }
  }
}
