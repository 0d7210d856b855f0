import type { Socket } from "node:net";
import {
  encodeHeader,
  END_BYTE,
  HEADER_SIZE,
  MAX_MESSAGE,
  MAX_PAYLOAD,
  type FrameType,
} from "../../../protocol/index.js";
import { InvalidParameter } from "../../errors.js";

const END = Buffer.of(END_BYTE);

/** Writes frames to the channel's socket (protocol/frame.ts). */
export class FrameWriter {
  readonly #socket: Socket;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** False while the socket has more waiting than it should; it emits `drain` later. */
  get writable(): boolean {
    return this.#socket.writable && !this.#socket.writableNeedDrain;
  }

  /** Bytes handed over and not yet taken by the hypervisor. */
  get backlog(): number {
    return this.#socket.writableLength;
  }

  /** The payload must not change afterwards. */
  frame(
    type: FrameType,
    stream: number,
    offset: number,
    payload?: Buffer,
  ): void {
    if (!this.#socket.writable) return;
    const length = payload?.length ?? 0;
    const small = length === 0;
    const header = Buffer.allocUnsafe(HEADER_SIZE + (small ? 1 : 0));
    const view = new DataView(
      header.buffer,
      header.byteOffset,
      header.byteLength,
    );
    encodeHeader(view, 0, length, type, stream, offset);
    if (!payload || small) {
      header[HEADER_SIZE] = END_BYTE;
      this.#socket.write(header);
      return;
    }
    this.#socket.cork();
    this.#socket.write(header);
    this.#socket.write(payload);
    this.#socket.write(END);
    this.#socket.uncork();
  }

  /**
   * Writes a JSON message in as many frames as it takes.
   * @throws {InvalidParameter} longer than MAX_MESSAGE
   */
  message(type: FrameType, message: unknown): void {
    const bytes = Buffer.from(JSON.stringify(message));
    if (bytes.length > MAX_MESSAGE) {
      throw new InvalidParameter(
        `a message of ${bytes.length} bytes is too long for the guest's agent (at most ${MAX_MESSAGE})`,
      );
    }
    let at = 0;
    do {
      const part = bytes.subarray(at, at + MAX_PAYLOAD);
      at += part.length;
      this.frame(type, at < bytes.length ? 1 : 0, 0, part);
    } while (at < bytes.length);
  }
}
