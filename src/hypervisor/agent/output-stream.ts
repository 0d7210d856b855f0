import { WINDOW } from "../../../protocol/index.js";
import type { OutputSink } from "../index.js";
import { ProtocolError } from "./protocol-error.js";

/** The host's side of one of a process's output streams: what came, and what was acknowledged. */
export class OutputStream {
  readonly #sink: OutputSink;
  readonly #onAcknowledged: () => void;
  #received: number;
  #acknowledged: number;
  #ended = false;

  /**
   * @param from bytes of the stream that were consumed over an earlier connection
   * @param onAcknowledged called when `acknowledged` has moved
   */
  constructor(sink: OutputSink, from: number, onAcknowledged: () => void) {
    this.#sink = sink;
    this.#received = from;
    this.#acknowledged = from;
    this.#onAcknowledged = onAcknowledged;
  }

  get acknowledged(): number {
    return this.#acknowledged;
  }

  /** @throws {ProtocolError} */
  data(offset: number, payload: Buffer): void {
    if (this.#ended) throw new ProtocolError("data after a stream's end");
    if (offset !== this.#received) {
      throw new ProtocolError(
        `data at ${offset} of a stream that is at ${this.#received}`,
      );
    }
    const end = offset + payload.length;
    if (end > this.#acknowledged + WINDOW) {
      throw new ProtocolError("data beyond a stream's window");
    }
    if (payload.length === 0) return;
    this.#received = end;
    this.#sink.data(payload, end, this.#acknowledge);
  }

  /** @throws {ProtocolError} */
  eof(offset: number): void {
    if (this.#ended) throw new ProtocolError("a stream ends twice");
    if (offset !== this.#received) {
      throw new ProtocolError(
        `end at ${offset} of a stream that is at ${this.#received}`,
      );
    }
    this.#ended = true;
    this.#sink.eof();
  }

  readonly #acknowledge = (offset: number): void => {
    if (offset > this.#received) {
      throw new RangeError(
        `acknowledged ${offset} bytes of ${this.#received} received`,
      );
    }
    if (offset <= this.#acknowledged) return;
    this.#acknowledged = offset;
    this.#onAcknowledged();
  };
}
