import { randomBytes } from "node:crypto";
import {
  encodeHeader,
  END_BYTE,
  FrameType,
  HEADER_SIZE,
  NONCE_SIZE,
  SYNC_MAGIC,
  SYNC_PADDING,
} from "../../../protocol/index.js";

/** Finds the beginning of a channel that another host connection used before (protocol/frame.ts). */
export class Resync {
  /** What the host writes first: padding and the Sync frame. */
  readonly opening: Buffer;
  readonly #answer: Buffer;
  #tail = Buffer.alloc(0);

  constructor(nonce: Buffer = randomBytes(NONCE_SIZE)) {
    this.opening = Buffer.alloc(SYNC_PADDING + HEADER_SIZE + NONCE_SIZE + 1);
    const view = new DataView(
      this.opening.buffer,
      this.opening.byteOffset,
      this.opening.length,
    );
    encodeHeader(view, SYNC_PADDING, NONCE_SIZE, FrameType.Sync, 0, 0);
    nonce.copy(this.opening, SYNC_PADDING + HEADER_SIZE);
    this.opening[this.opening.length - 1] = END_BYTE;
    this.#answer = Buffer.concat([Buffer.from(SYNC_MAGIC), nonce]);
  }

  /**
   * Takes what the agent writes and drops it up to the answer.
   * @returns what follows the answer, once it was there
   */
  push(chunk: Buffer): Buffer | undefined {
    const bytes = Buffer.concat([this.#tail, chunk]);
    const found = bytes.indexOf(this.#answer);
    if (found >= 0) return bytes.subarray(found + this.#answer.length);
    this.#tail = bytes.subarray(
      Math.max(0, bytes.length - this.#answer.length + 1),
    );
    return undefined;
  }
}
