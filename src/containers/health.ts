/**
 * Watches over the health of running containers: probes at Docker's times, counts failures, keeps the
 * last results in the record, and tells when the status changes (moby daemon/health.go).
 */
import type { Logger } from "pino";
import type { Container } from "./container.js";
import type { Tell } from "./container-events.js";
import type { Exec, Execs } from "./execs.js";
import { type Check, checkOf, goDuration } from "./healthcheck.js";
import { timestamp } from "./log/json-file.js";
import type { Health, HealthResult } from "./record.js";
import { SIGKILL } from "./signals.js";

/** How many results inspect shows. */
const MAX_RESULTS = 5;
/** How much of a probe's output is kept, in bytes. */
const MAX_OUTPUT = 4096;
/** A guest has this long to start a probe, in ms; it is not part of the check's own timeout. */
const START_LIMIT = 30_000;
/** Longest time a timer of node takes. */
const MAX_TIMER = 2 ** 31 - 1;

type Outcome = Pick<HealthResult, "exitCode" | "output">;

export class HealthMonitors {
  readonly #execs: Execs;
  readonly #tell: Tell;
  readonly #log: Logger;
  readonly #running = new Map<Container, AbortController>();

  constructor(options: { execs: Execs; tell: Tell; log: Logger }) {
    this.#execs = options.execs;
    this.#tell = options.tell;
    this.#log = options.log;
  }

  /** A run of the container has begun: it is "starting" until a probe says otherwise. */
  begin(container: Container): void {
    const { state, config } = container.record;
    if (!checkOf(config.Healthcheck, config.Shell)) return;
    state.health = {
      status: "starting",
      failingStreak: 0,
      log: state.health?.log ?? [],
    };
    this.resume(container);
  }

  /** Goes on after a pause, or in a daemon that took the container over. */
  resume(container: Container): void {
    const { state, config } = container.record;
    const check = checkOf(config.Healthcheck, config.Shell);
    const { health } = state;
    if (!check || !health || state.status !== "running") return;
    this.#running.get(container)?.abort();
    const stop = new AbortController();
    this.#running.set(container, stop);
    void this.#watch(container, health, check, stop.signal);
  }

  /** Nobody probes any more, hence nobody can say that it is healthy. A pause is such a case in Docker, too. */
  stop(container: Container): void {
    const { health } = container.record.state;
    if (health && this.#running.has(container)) health.status = "unhealthy";
    this.#running.get(container)?.abort();
    this.#running.delete(container);
  }

  /** The daemon goes away; the next one goes on with what the records say. */
  close(): void {
    for (const stop of this.#running.values()) stop.abort();
    this.#running.clear();
  }

  async #watch(
    container: Container,
    health: Health,
    check: Check,
    stop: AbortSignal,
  ): Promise<void> {
    for (;;) {
      await pause(this.#interval(container, health, check), stop);
      if (stop.aborted) return;
      const start = timestamp();
      const outcome = await this.#probe(container, check, stop);
      if (stop.aborted) return;
      const result = { start, end: timestamp(), ...outcome };
      const before = health.status;
      note(health, result, check, Date.parse(container.record.state.startedAt));
      if (health.status !== before) {
        this.#tell(container, `health_status: ${health.status}`);
      }
      await container.save().catch((error: unknown) => {
        this.#log.error(
          { err: error, container: container.id },
          "cannot record a container's health",
        );
      });
    }
  }

  #interval(container: Container, health: Health, check: Check): number {
    const age = Date.now() - Date.parse(container.record.state.startedAt);
    return health.status === "starting" && age < check.startPeriod
      ? check.startInterval
      : check.interval;
  }

  async #probe(
    container: Container,
    check: Check,
    stop: AbortSignal,
  ): Promise<Outcome> {
    let exec: Exec;
    try {
      exec = this.#execs.create(container, {
        Cmd: check.argv,
        AttachStdout: true,
        AttachStderr: true,
      });
    } catch (error) {
      // It is about to end, or to be paused.
      return { exitCode: -1, output: (error as Error).message };
    }
    const output = new LimitedText();
    const ended = new Promise<void>((resolve) => {
      exec.stdio.attach({
        stdout: true,
        stderr: true,
        write: (_stream, chunk) => {
          output.add(chunk);
          return Promise.resolve();
        },
        end: resolve,
      });
    });
    const kill = () => {
      void container.machine?.agent
        .request("signal", { process: exec.process, signal: SIGKILL })
        .catch(() => undefined);
    };
    try {
      const started = this.#execs.start(exec);
      // A guest that stands still answers when it goes on, and nobody waits for it then.
      started.catch(() => undefined);
      if (!(await settles(started, START_LIMIT, stop))) {
        return {
          exitCode: -1,
          output: `timed out starting health check for container ${container.id}`,
        };
      }
      if (!(await settles(ended, check.timeout, stop))) {
        kill();
        // Dying probes are not to pile up.
        if (!stop.aborted) await settles(ended, START_LIMIT, stop);
        const written = output.toString();
        return {
          exitCode: -1,
          output:
            `Health check exceeded timeout (${goDuration(check.timeout)})` +
            (written === "" ? "" : `: ${written}`),
        };
      }
      return { exitCode: exec.exitCode ?? -1, output: output.toString() };
    } catch (error) {
      return { exitCode: -1, output: (error as Error).message };
    } finally {
      const discard = () => this.#execs.discard(exec);
      if (exec.state === "running") void ended.then(discard);
      else discard();
    }
  }
}

/** Adds a result and draws the conclusion. `startedAt` in ms since the epoch. */
export function note(
  health: Health,
  result: HealthResult,
  check: Pick<Check, "startPeriod" | "retries">,
  startedAt: number,
): void {
  health.log = [...health.log, result].slice(-MAX_RESULTS);
  if (result.exitCode === 0) {
    health.failingStreak = 0;
    health.status = "healthy";
    return;
  }
  const age = Date.parse(result.start) - startedAt;
  if (health.status === "starting" && age < check.startPeriod) return;
  health.failingStreak++;
  if (health.failingStreak >= check.retries) health.status = "unhealthy";
}

/** The beginning of a text; what is beyond MAX_OUTPUT bytes is cut and marked so. */
class LimitedText {
  #chunks: Buffer[] = [];
  #length = 0;
  #cut = false;

  add(chunk: Buffer): void {
    const kept = chunk.subarray(0, MAX_OUTPUT - this.#length);
    if (kept.length < chunk.length) this.#cut = true;
    if (kept.length === 0) return;
    // A copy: what is kept must not keep the whole chunk.
    this.#chunks.push(Buffer.from(kept));
    this.#length += kept.length;
  }

  toString(): string {
    return Buffer.concat(this.#chunks).toString() + (this.#cut ? "..." : "");
  }
}

/** Resolves after so many ms, or when it is called off. */
async function pause(ms: number, stop: AbortSignal): Promise<void> {
  const end = Date.now() + ms;
  while (!stop.aborted) {
    const left = end - Date.now();
    if (left <= 0) return;
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        stop.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, Math.min(left, MAX_TIMER));
      stop.addEventListener("abort", done);
    });
  }
}

/** Whether a promise settles within so many ms and before it is called off; rejects as it does. */
async function settles(
  promise: Promise<unknown>,
  ms: number,
  stop: AbortSignal,
): Promise<boolean> {
  const late = new AbortController();
  const either = AbortSignal.any([late.signal, stop]);
  const timer = pause(ms, either).then(() => false);
  try {
    return await Promise.race([promise.then(() => true), timer]);
  } finally {
    late.abort();
  }
}
