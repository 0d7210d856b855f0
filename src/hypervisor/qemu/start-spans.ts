import type { Hello } from "../../../protocol/index.js";

/** Where the time of a start goes: spans that follow each other, from the call to the agent's hello. */
export class StartSpans {
  readonly list: { name: string; ms: number }[] = [];
  #last = performance.now();

  /** Ends the span that began with the end of the one before. */
  done(name: string): void {
    const now = performance.now();
    this.list.push({ name, ms: now - this.#last });
    this.#last = now;
  }

  /** Divides what has passed since the process was started by what the guest says of itself. */
  hello({ uptimeMs, agent }: Hello): void {
    const total = performance.now() - this.#last;
    const guest = Math.min(uptimeMs, total);
    const ready = Math.min(agent?.readyMs ?? 0, guest);
    this.list.push(
      { name: "qemu", ms: total - guest },
      { name: "kernel", ms: guest - ready },
      { name: "agent", ms: ready },
    );
  }
}
