import { MAX_MESSAGE, MAX_PAYLOAD } from "../../../protocol/index.js";
import { ProtocolError } from "./protocol-error.js";

/** Joins the frames of one message type into JSON messages, at most MAX_MESSAGE bytes each. */
export class MessageAssembler {
  #buffer: Buffer | undefined;
  #filled = 0;

  /**
   * @param more whether further frames of the same message follow
   * @returns the message, when this was its last frame
   * @throws {ProtocolError} the message is too long or is no JSON
   */
  push(payload: Buffer, more: boolean): unknown {
    if (!more && this.#filled === 0) return parse(payload);
    this.#append(payload);
    if (more) return undefined;
    const whole = this.#buffer?.subarray(0, this.#filled) ?? payload;
    this.#buffer = undefined;
    this.#filled = 0;
    return parse(whole);
  }

  #append(payload: Buffer): void {
    const size = this.#filled + payload.length;
    if (size > MAX_MESSAGE) {
      throw new ProtocolError(`a message is longer than ${MAX_MESSAGE} bytes`);
    }
    if (!this.#buffer || this.#buffer.length < size) {
      const grown = Buffer.allocUnsafe(Math.max(2 * size, 2 * MAX_PAYLOAD));
      this.#buffer?.copy(grown, 0, 0, this.#filled);
      this.#buffer = grown;
    }
    payload.copy(this.#buffer, this.#filled);
    this.#filled = size;
  }
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    throw new ProtocolError("a message is not JSON");
  }
}
