import { MAX_PAYLOAD, WINDOW } from "../../../protocol/index.js";
import type { Unavailable } from "../../errors.js";
import type { InputStream } from "../index.js";
import { ProtocolError } from "./protocol-error.js";

/** How an input stream reaches the channel. */
export interface InputTransport {
  /** Whether the channel takes more bytes now; the stream's `pump` is called when it does again. */
  writable(): boolean;
  data(offset: number, payload: Buffer): void;
  eof(offset: number): void;
}

interface Write {
  chunk: Buffer;
  resolve: () => void;
  reject: (error: Error) => void;
}

/** The host's side of a process's stdin: sends within the window the agent grants. */
export class StdinStream implements InputStream {
  readonly #transport: InputTransport;
  readonly #queue: Write[] = [];
  #sent: number;
  /** Nothing may be sent while it is unknown: until the agent's first Ack after a Sync. */
  #acknowledged: number | undefined;
  #state: "open" | "ending" | "ended" = "open";
  #failure: Unavailable | undefined;

  constructor(
    transport: InputTransport,
    sent: number,
    acknowledged: number | undefined,
  ) {
    this.#transport = transport;
    this.#sent = sent;
    if (acknowledged !== undefined) this.acknowledge(acknowledged);
  }

  write(chunk: Buffer): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure);
    if (this.#state !== "open" || chunk.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#queue.push({ chunk, resolve, reject });
      this.pump();
    });
  }

  end(): void {
    if (this.#state !== "open") return;
    this.#state = "ending";
    this.pump();
  }

  /** @throws {ProtocolError} what was never sent is acknowledged */
  acknowledge(offset: number): void {
    if (offset > this.#sent) {
      throw new ProtocolError(
        `${offset} bytes of a stdin acknowledged, ${this.#sent} were sent`,
      );
    }
    this.#acknowledged = Math.max(this.#acknowledged ?? 0, offset);
    this.pump();
  }

  /** Nobody reads any more: what is written from now on is dropped. */
  discard(): void {
    this.#state = "ended";
    for (const write of this.#queue.splice(0)) write.resolve();
  }

  fail(error: Unavailable): void {
    this.#failure = error;
    this.#state = "ended";
    for (const write of this.#queue.splice(0)) write.reject(error);
  }

  /** Sends what the window and the channel allow. */
  pump(): void {
    if (this.#acknowledged === undefined) return;
    while (this.#transport.writable()) {
      const write = this.#queue[0];
      if (!write) {
        if (this.#state === "ending") {
          this.#state = "ended";
          this.#transport.eof(this.#sent);
        }
        return;
      }
      const part = write.chunk.subarray(0, MAX_PAYLOAD);
      // Whole pieces only: the agent acknowledges every few bytes that its process reads, and a frame costs
      // the guest as much when it carries few. With so little credit most of the window is on its way yet.
      if (this.#acknowledged + WINDOW - this.#sent < part.length) return;
      const offset = this.#sent;
      this.#sent += part.length;
      write.chunk = write.chunk.subarray(part.length);
      if (write.chunk.length === 0) this.#queue.shift();
      this.#transport.data(offset, part);
      if (write.chunk.length === 0) write.resolve();
    }
  }
}
