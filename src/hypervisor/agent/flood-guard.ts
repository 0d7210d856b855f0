import { ProtocolError } from "./protocol-error.js";

/** Events that a sound agent never comes near: a few hundred bytes each, a few a second. */
const BURST_BYTES = 8 * 1024 * 1024;
const BYTES_PER_SECOND = 256 * 1024;

/**
 * Ends the channel of a guest that keeps the daemon busy with reading events. Everything else a guest
 * may send is bounded by a window or answers a request.
 */
export class FloodGuard {
  readonly #now: () => number;
  #budget = BURST_BYTES;
  #refilled: number;

  /** @param now a monotonic clock in milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#refilled = now();
  }

  /** @throws {ProtocolError} it is too much */
  count(bytes: number): void {
    const now = this.#now();
    const earned = ((now - this.#refilled) / 1000) * BYTES_PER_SECOND;
    this.#budget = Math.min(BURST_BYTES, this.#budget + earned) - bytes;
    this.#refilled = now;
    if (this.#budget < 0) throw new ProtocolError("a flood of events");
  }
}
