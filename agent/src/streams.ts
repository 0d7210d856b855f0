/**
 * A process's streams. Output is read from its pipe (or terminal) into a ring, sent within the window,
 * and kept until the host has acknowledged it; a full ring stops the reading, and so the process.
 * Input goes from the channel into the process's pipe, by way of a ring where the pipe is full.
 */
import { FrameType, WINDOW } from "../../protocol/index.js";
import type { Channel, Sending, Source } from "./channel.js";
import { EPOLLIN, EPOLLOUT } from "./constants.js";
import type { EventLoop } from "./loop.js";
import { Ring } from "./ring.js";
import { isSysError } from "./sys.js";

const allocate = (size: number) => sys.allocate(size);

/** What is still read of an output whose process has ended but whose pipe others hold and fill. */
const LAST_BYTES = 1024 * 1024;

export class OutputStream implements Source {
  private readonly ring = new Ring(WINDOW, allocate);
  /** Offset of the next byte to send. */
  private sent = 0;
  private eofSent = false;
  /** After a Sync: nothing is sent before the host has said from where. */
  private silent = false;
  private watched = false;
  private fd: number;
  /** Set when the stream is to end at the next occasion; see `finish`. */
  private lastOffset: number | undefined;

  /** Called when the stream ended and all of it was sent. */
  private onDone: (() => void) | undefined;

  /**
   * Until it begins, bytes are only read.
   * @param fd non-blocking; owned by the stream from now on
   */
  constructor(
    private readonly stream: number,
    fd: number,
    private readonly loop: EventLoop,
    private readonly channel: Channel,
  ) {
    this.fd = fd;
    this.watch();
  }

  /** Takes the memory that its bytes will need. */
  reserve(): void {
    void this.ring.buffer;
  }

  /** @param onDone called when the stream ended and all of it was sent */
  begin(onDone: () => void): void {
    this.onDone = onDone;
    if (this.ring.end > 0 || this.ended) this.channel.wake(this);
  }

  /** Bytes read so far. */
  get produced(): number {
    return this.ring.end;
  }

  /** No more bytes will come. */
  get ended(): boolean {
    return this.fd < 0;
  }

  /** Ended, and all of it and the end were sent. */
  get done(): boolean {
    return this.eofSent;
  }

  /** The host has everything. */
  get acknowledged(): boolean {
    return this.ended && this.ring.begin === this.ring.end;
  }

  /** The process waits for the host to acknowledge. */
  get full(): boolean {
    return this.ring.room === 0;
  }

  /** Reads what is there now, as far as the ring has room. */
  drain(): void {
    while (this.fd >= 0 && this.read());
  }

  /** The process has ended: what others still write is left out, what is in the pipe is not. */
  finish(): void {
    this.lastOffset = this.ring.end + LAST_BYTES;
    this.drain();
  }

  /** The host has consumed everything below `offset`. */
  ack(offset: number): void {
    this.ring.forget(offset);
    if (this.silent) {
      this.silent = false;
      this.eofSent = false;
      this.sent = this.ring.begin;
      this.channel.wake(this);
    }
    if (this.sent < this.ring.begin) this.sent = this.ring.begin;
    if (this.ended && this.ring.begin === this.ring.end) this.ring.drop();
    if (this.fd >= 0 && !this.watched && !this.full) this.watch();
  }

  /** A new host connection: nothing is sent until it has acknowledged something. */
  sync(): void {
    this.silent = true;
  }

  send(channel: Channel): Sending {
    if (this.silent || !this.onDone) return "idle";
    const { ring, stream } = this;
    if (this.sent < ring.end) {
      const length = channel.room(ring.end - this.sent);
      if (length === 0) return "full";
      channel.put(
        FrameType.Data,
        stream,
        this.sent,
        ring.buffer,
        ring.at(this.sent),
        length,
      );
      this.sent += length;
      return "sent";
    }
    if (this.ended && !this.eofSent) {
      if (!channel.put(FrameType.Eof, stream, ring.end)) return "full";
      this.eofSent = true;
      this.onDone();
    }
    return "idle";
  }

  /** Gives everything back. */
  close(): void {
    this.end();
    this.ring.drop();
  }

  private watch(): void {
    this.watched = true;
    this.loop.add(this.fd, EPOLLIN, () => this.read());
  }

  private unwatch(): void {
    if (this.watched) this.loop.remove(this.fd);
    this.watched = false;
  }

  /** Reads once; false when there is nothing to be had now. */
  private read(): boolean {
    const { ring } = this;
    if (ring.room === 0) {
      this.unwatch();
      return false;
    }
    let count: number;
    try {
      count = sys.read(this.fd, ring.buffer, ring.at(ring.end), ring.freePiece);
    } catch (error) {
      // A terminal whose other side is closed reads as EIO.
      if (!isSysError(error)) throw error;
      count = 0;
    }
    if (count > 0) ring.end += count;
    const last =
      this.lastOffset !== undefined &&
      (count < 0 || ring.end >= this.lastOffset);
    if (count === 0 || last) this.end();
    if (count !== -1 || last) this.channel.wake(this);
    return count > 0 && !last;
  }

  private end(): void {
    if (this.fd < 0) return;
    this.unwatch();
    sys.close(this.fd);
    this.fd = -1;
  }
}

export class InputStream implements Source {
  private readonly ring = new Ring(WINDOW, allocate);
  private watched = false;
  private eof = false;
  private acked = 0;
  /** Until the program runs, bytes are only kept. */
  private started = false;
  private fd: number;

  /**
   * @param fd non-blocking, owned by the stream from now on; -1 for a process without stdin
   * @param closes whether the end of the stream closes the descriptor (not so for a terminal)
   */
  constructor(
    private readonly stream: number,
    fd: number,
    private readonly closes: boolean,
    private readonly loop: EventLoop,
    private readonly channel: Channel,
  ) {
    this.fd = fd;
  }

  /** Bytes received so far. */
  get received(): number {
    return this.ring.end;
  }

  /** The program runs: what has come until now goes to it. */
  start(): void {
    this.started = true;
    this.flush();
  }

  /**
   * Takes bytes from the host. Those below `received` are known already.
   * @throws {RangeError} they leave a gap or do not fit into the window
   */
  data(offset: number, bytes: ArrayBuffer, at: number, length: number): void {
    const { ring } = this;
    if (offset > ring.end) throw new RangeError("gap in stdin");
    const known = Math.min(ring.end - offset, length);
    at += known;
    length -= known;
    if (length > ring.room) throw new RangeError("stdin beyond the window");
    if (this.started && this.fd >= 0 && ring.begin === ring.end) {
      const count = this.write(bytes, at, length);
      at += count;
      length -= count;
      ring.end += count;
      ring.begin += count;
    }
    if (this.fd < 0) {
      ring.end += length;
      ring.begin = ring.end;
      length = 0;
    }
    while (length > 0) {
      const piece = Math.min(length, ring.freePiece);
      sys.copy(bytes, at, piece, ring.buffer, ring.at(ring.end));
      ring.end += piece;
      at += piece;
      length -= piece;
    }
    this.advance();
  }

  /** The host says that the stream ends at `offset`. */
  end(offset: number): void {
    if (offset !== this.ring.end)
      throw new RangeError("stdin ends where it does not end");
    this.eof = true;
    this.advance();
  }

  /** A new host connection wants to know how far the stream was consumed. */
  sync(): void {
    this.acked = -1;
    this.channel.wake(this);
  }

  send(channel: Channel): Sending {
    const { begin } = this.ring;
    if (this.acked === begin) return "idle";
    if (!channel.put(FrameType.Ack, this.stream, begin)) return "full";
    this.acked = begin;
    return "idle";
  }

  /** Nobody reads any more: all that is there and will come is acknowledged and dropped. */
  close(): void {
    if (this.fd >= 0) {
      if (this.watched) this.loop.remove(this.fd);
      this.watched = false;
      sys.close(this.fd);
      this.fd = -1;
    }
    this.ring.drop();
    this.advance();
  }

  /** Acknowledges what was consumed, and sees what is to be waited for. */
  private advance(): void {
    const { ring } = this;
    if (!this.started) return;
    if (this.acked !== ring.begin) this.channel.wake(this);
    if (this.fd < 0) return;
    if (ring.begin < ring.end) {
      if (!this.watched) {
        this.watched = true;
        this.loop.add(this.fd, EPOLLOUT, () => this.flush());
      }
      return;
    }
    if (this.watched) {
      this.watched = false;
      this.loop.remove(this.fd);
    }
    if (this.eof && this.closes) this.close();
  }

  private flush(): void {
    const { ring } = this;
    while (this.fd >= 0 && ring.begin < ring.end) {
      const count = this.write(
        ring.buffer,
        ring.at(ring.begin),
        ring.piece(ring.begin),
      );
      if (count === 0) break;
      ring.begin += count;
    }
    this.advance();
  }

  /** Bytes the process's end took. */
  private write(bytes: ArrayBuffer, at: number, length: number): number {
    try {
      return Math.max(0, sys.write(this.fd, bytes, at, length));
    } catch (error) {
      // The reader is gone (EPIPE, or EIO for a terminal).
      if (!isSysError(error)) throw error;
      this.close();
      return 0;
    }
  }
}
