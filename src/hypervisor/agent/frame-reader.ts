import {
  decodeHeader,
  END_BYTE,
  HEADER_SIZE,
  MAX_PAYLOAD,
  type FrameHeader,
} from "../../../protocol/index.js";
import { ProtocolError } from "./protocol-error.js";

/** A whole frame; the payload is the receiver's to keep. */
export interface Frame extends FrameHeader {
  payload: Buffer;
}

const EMPTY = Buffer.alloc(0);

/**
 * Cuts the bytes of a channel into frames (protocol/frame.ts). It keeps at most one frame's bytes, and
 * looks at nothing but the length before the frame is whole.
 */
export class FrameReader {
  readonly #onFrame: (frame: Frame) => void;
  readonly #headerBytes = new Uint8Array(HEADER_SIZE);
  readonly #headerView = new DataView(this.#headerBytes.buffer);
  #headerFilled = 0;
  #header: FrameHeader | undefined;
  #payload: Buffer = EMPTY;
  #payloadFilled = 0;

  constructor(onFrame: (frame: Frame) => void) {
    this.#onFrame = onFrame;
  }

  /** @throws {ProtocolError} the bytes are no frames */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (!this.#header) {
        at += this.#readHeader(chunk, at);
      } else if (this.#payloadFilled < this.#header.length) {
        at += this.#readPayload(this.#header, chunk, at);
      } else {
        if (chunk[at] !== END_BYTE) {
          throw new ProtocolError("a frame does not end where it should");
        }
        at += 1;
        const frame = { ...this.#header, payload: this.#payload };
        this.#header = undefined;
        this.#headerFilled = 0;
        this.#payload = EMPTY;
        this.#payloadFilled = 0;
        this.#onFrame(frame);
      }
    }
  }

  #readHeader(chunk: Buffer, at: number): number {
    const part = chunk.subarray(at, at + HEADER_SIZE - this.#headerFilled);
    this.#headerBytes.set(part, this.#headerFilled);
    this.#headerFilled += part.length;
    if (this.#headerFilled === HEADER_SIZE) {
      const header = decodeHeader(this.#headerView, 0);
      if (header.length > MAX_PAYLOAD) {
        throw new ProtocolError(
          `a frame claims ${header.length} bytes, more than ${MAX_PAYLOAD}`,
        );
      }
      this.#header = header;
    }
    return part.length;
  }

  #readPayload(header: FrameHeader, chunk: Buffer, at: number): number {
    const wanted = header.length - this.#payloadFilled;
    const part = chunk.subarray(at, at + wanted);
    if (this.#payloadFilled === 0 && part.length === wanted) {
      // A small payload is copied: it must not keep a big chunk in memory for as long as it is kept.
      this.#payload =
        part.length * 2 < chunk.buffer.byteLength ? Buffer.from(part) : part;
    } else {
      if (this.#payloadFilled === 0) {
        this.#payload = Buffer.allocUnsafe(header.length);
      }
      part.copy(this.#payload, this.#payloadFilled);
    }
    this.#payloadFilled += part.length;
    return part.length;
  }
}
