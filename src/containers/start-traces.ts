/** Takes traces of starts, hands them to whoever counts, and keeps each container's last one. */
import type { Logger } from "pino";
import type { Container } from "./container.js";
import { type StartReport, StartTrace } from "./start-trace.js";
import { readStartReport, writeStartReport } from "./start-trace-file.js";

/** Is told of starts, for statistics. */
export interface StartObserver {
  /** A start has succeeded, or failed. */
  ended(report: StartReport): void;
  /** The first byte of output of a start that has succeeded came. */
  firstByte(report: StartReport): void;
}

/** A report is written this many ms after the start, when the machine's CPUs have less to do. */
const WRITE_DELAY = 250;

export class StartTraces {
  readonly #log: Logger;
  readonly #observer: StartObserver | undefined;
  readonly #pending = new Map<Container, NodeJS.Timeout>();

  constructor(log: Logger, observer?: StartObserver) {
    this.#log = log;
    this.#observer = observer;
  }

  /** @param since when the request came in, by the clock of `performance.now()` */
  begin(container: Container, since?: number): StartTrace {
    const trace = new StartTrace(container.id, since);
    trace.open("api", 0)();
    return trace;
  }

  /** The start is under way: its output is what the container's streams carry from now on. */
  running(container: Container, trace: StartTrace): void {
    container.startTrace = trace;
    const leave = container.stdio.attach({
      stdout: true,
      stderr: true,
      write: () => {
        leave();
        if (trace.output() && trace.over) this.#firstByte(container, trace);
        return Promise.resolve();
      },
      end: () => undefined,
    });
  }

  ended(container: Container, trace: StartTrace, error?: Error): void {
    trace.ended(error);
    const report = trace.report();
    this.#log.debug(report, error ? "start failed" : "container started");
    this.#observer?.ended(report);
    if (report.firstByteMs !== undefined && !error) {
      this.#observer?.firstByte(report);
    }
    this.#writeSoon(container);
  }

  /**
   * The report of a container's last start, whichever daemon made it.
   * @returns undefined when it was never started
   */
  async of(container: Container): Promise<StartReport | undefined> {
    const report = container.startTrace?.report();
    return report ?? (await readStartReport(container.directory));
  }

  /** Writes what has not been written yet. */
  async close(): Promise<void> {
    await Promise.all(
      [...this.#pending.keys()].map((container) => this.#write(container)),
    );
  }

  #firstByte(container: Container, trace: StartTrace): void {
    this.#observer?.firstByte(trace.report());
    this.#writeSoon(container);
  }

  #writeSoon(container: Container): void {
    if (this.#pending.has(container)) return;
    const timer = setTimeout(() => void this.#write(container), WRITE_DELAY);
    this.#pending.set(container, timer.unref());
  }

  async #write(container: Container): Promise<void> {
    clearTimeout(this.#pending.get(container));
    this.#pending.delete(container);
    const report = container.startTrace?.report();
    if (!report) return;
    try {
      await container.write(() =>
        writeStartReport(container.directory, report),
      );
    } catch (error) {
      this.#log.warn(
        { err: error, container: container.id },
        "cannot keep the trace of a start",
      );
    }
  }
}
