import type { AgentEvent } from "../../../protocol/index.js";

const BURST = 200;
const PER_SECOND = 20;

/** Keeps a guest from filling the daemon's log: lets through a burst, then a few lines a second. */
export class LogLimiter {
  readonly #now: () => number;
  #tokens = BURST;
  #refilled: number;
  #dropped = 0;

  /** @param now a monotonic clock in milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#refilled = now();
  }

  /** Whether the line may pass. One that follows dropped lines says how many they were. */
  admit(line: Extract<AgentEvent, { event: "log" }>): boolean {
    const now = this.#now();
    const earned = ((now - this.#refilled) / 1000) * PER_SECOND;
    this.#tokens = Math.min(BURST, this.#tokens + earned);
    this.#refilled = now;
    if (this.#tokens < 1) {
      this.#dropped += 1;
      return false;
    }
    this.#tokens -= 1;
    if (this.#dropped > 0) {
      line.message += ` (${this.#dropped} lines before this one were dropped)`;
      this.#dropped = 0;
    }
    return true;
  }
}
