/**
 * The trace of one start: what was done from the request to the first byte of output, when it began and how
 * long it took. Spans overlap where things are done side by side.
 */
import type { SetupResult } from "../../protocol/index.js";
import type { Machine, StartKind } from "../hypervisor/index.js";

/** Output that comes later says nothing of the start: the program was silent. */
const LATE_MS = 10_000;

/** A part of a start; times in milliseconds. */
export interface StartSpan {
  /** Parts of a part are named "whole: part". */
  name: string;
  /** From the begin of the start. */
  at: number;
  ms: number;
}

/** What is kept of a start. Plain JSON. */
export interface StartReport {
  container: string;
  /** RFC 3339, when the request came in. */
  begun: string;
  /** How the machine came up; undefined when there was none yet when the start failed. */
  kind?: StartKind;
  /** Why a faster way did not work. */
  fallback?: string;
  /** Why the start failed. */
  error?: string;
  /** In the order of their beginning. */
  spans: StartSpan[];
  /** Until the container was running, or its start had failed. */
  ms: number;
  /** Until the first byte of its output came; missing while there is none. */
  firstByteMs?: number;
}

/** Takes down one start while it happens. */
export class StartTrace {
  readonly #container: string;
  readonly #origin: number;
  readonly #begun: string;
  readonly #spans: StartSpan[] = [];
  #machine: { machine: Machine; at: number } | undefined;
  #setup: { timings: SetupResult["timings"]; at: number } | undefined;
  #end: number | undefined;
  #firstByte: number | undefined;
  #error: string | undefined;

  /** @param since when the request came in, by the clock of `performance.now()` */
  constructor(container: string, since = performance.now()) {
    this.#container = container;
    this.#origin = since;
    const past = performance.now() - since;
    this.#begun = new Date(Date.now() - past).toISOString();
  }

  /** Times what `action` does. */
  async span<T>(name: string, action: Promise<T>): Promise<T> {
    const close = this.open(name);
    try {
      return await action;
    } finally {
      close();
    }
  }

  /** Times an action that was asked for early and begins when `before` is done. */
  async after<T>(
    before: Promise<unknown>,
    name: string,
    action: Promise<T>,
  ): Promise<T> {
    // Whoever waits for it hears of its failure, not we.
    action.catch(() => undefined);
    await before.catch(() => undefined);
    return this.span(name, action);
  }

  /** Begins a span. @returns ends it */
  open(name: string, at = this.#now()): () => void {
    return () => void this.#spans.push({ name, at, ms: this.#now() - at });
  }

  /** Times the start of the machine; its own spans are read when the report is. */
  async machine(start: Promise<Machine>): Promise<Machine> {
    const at = this.#now();
    const machine = await this.span("machine", start);
    this.#machine = { machine, at };
    return machine;
  }

  /**
   * Times the agent's setup, with the steps the agent tells of.
   * @param request is called for it: the machine it is sent to may take the CPU before it returns
   */
  async setup(request: () => Promise<SetupResult>): Promise<SetupResult> {
    const at = this.#now();
    const close = this.open("setup", at);
    const result = await request().finally(close);
    this.#setup = { timings: result.timings, at };
    return result;
  }

  /** Output came. @returns whether it was the first, and soon enough to count */
  output(): boolean {
    const now = this.#now();
    if (this.#firstByte !== undefined || now > LATE_MS) return false;
    this.#firstByte = now;
    return true;
  }

  get over(): boolean {
    return this.#end !== undefined;
  }

  /** The container runs, or its start failed. */
  ended(error?: Error): void {
    this.#end = this.#now();
    this.#error = error?.message;
  }

  report(): StartReport {
    const { machine, at = 0 } = this.#machine ?? {};
    const spans = [
      ...this.#spans,
      ...chain("machine", at, machine?.spans ?? []),
      ...chain(
        "setup",
        this.#setup?.at ?? 0,
        guestSteps(this.#setup?.timings ?? {}),
      ),
    ].sort((a, b) => a.at - b.at);
    return {
      container: this.#container,
      begun: this.#begun,
      ...(machine && { kind: machine.startKind }),
      ...(machine?.fallback !== undefined && { fallback: machine.fallback }),
      ...(this.#error !== undefined && { error: this.#error }),
      spans: spans.map(({ name, at, ms }) => ({
        name,
        at: rounded(at),
        ms: rounded(ms),
      })),
      ms: rounded(this.#end ?? this.#now()),
      ...(this.#firstByte !== undefined && {
        firstByteMs: rounded(this.#firstByte),
      }),
    };
  }

  #now(): number {
    return performance.now() - this.#origin;
  }
}

const MAX_STEPS = 40;

/** The guest wrote them: a compromised one must not fill the disk or speak to the reader's terminal. */
function guestSteps(timings: SetupResult["timings"]) {
  const steps = Object.entries(timings).slice(0, MAX_STEPS);
  return steps.map(([step, us]) => ({
    name: step.replace(/[^\w ./-]/g, "?").slice(0, 40),
    ms: Number.isFinite(us) ? Math.max(0, us / 1000) : 0,
  }));
}

/** Gives spans that follow each other their places. */
function chain(
  whole: string,
  begin: number,
  parts: readonly { name: string; ms: number }[],
): StartSpan[] {
  let at = begin;
  return parts.map(({ name, ms }) => {
    const span = { name: `${whole}: ${name}`, at, ms };
    at += ms;
    return span;
  });
}

/** To the microsecond. */
function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
