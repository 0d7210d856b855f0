/** Work on a container's files in its machine; see protocol/messages.ts, FileWork. */
import { Readable, Writable } from "node:stream";
import {
  Channel,
  type FileTask,
  type PathStat,
  type ProcessExit,
  WINDOW,
} from "../../protocol/index.js";
import { InvalidParameter, SystemError } from "../errors.js";
import type { Machine, OutputSink } from "../hypervisor/index.js";
import { SIGKILL } from "./signals.js";

/** Exit code of work that was given a bad archive. */
const BAD_ARCHIVE = 2;
/** How much of an agent's words about a failure is kept. */
const MAX_WORDS = 4096;

/** Work that has begun. */
export interface RunningTask {
  /** What is at the path of `stat` and `archive`. */
  stat: PathStat | undefined;
  /** The archive that comes out. To be read to its end or destroyed. */
  output: Readable;
  /** The archive that goes in. To be ended or destroyed. */
  input: Writable;
  /** @throws {SystemError} it failed, in the agent's words, or its machine ended */
  done: Promise<void>;
}

/** The file work of one machine. */
export class MachineFiles {
  readonly #machine: Machine;
  readonly #nextProcess: () => number;
  readonly #waiting = new Map<number, (exit: ProcessExit) => void>();

  /** @param nextProcess gives numbers no other process of the machine has */
  constructor(machine: Machine, nextProcess: () => number) {
    this.#machine = machine;
    this.#nextProcess = nextProcess;
  }

  /** Hears of every process that ends. @returns whether it is one of these */
  exited(process: number, exit: ProcessExit): boolean {
    const waiting = this.#waiting.get(process);
    waiting?.(exit);
    return waiting !== undefined;
  }

  /**
   * Starts work.
   * @throws {AgentFailure} it cannot be done, with its errno
   */
  async begin(task: FileTask): Promise<RunningTask> {
    const { agent } = this.#machine;
    const process = this.#nextProcess();
    const exit = new Promise<ProcessExit>((resolve) =>
      this.#waiting.set(process, resolve),
    );
    const words = new Words();
    const output = new ArchiveOutput(() => {
      void agent
        .request("signal", { process, signal: SIGKILL })
        .catch(() => undefined);
    });
    agent.output(process, Channel.Stdout, output);
    agent.output(process, Channel.Stderr, words);
    try {
      const answer = agent.request("files", { process, task });
      const input = agent.input(process);
      const { stat } = await answer;
      const done = this.#ended(process, exit, output, words);
      // Whoever reads the output learns of the failure there.
      done.catch((error: unknown) => output.destroy(error as Error));
      return {
        stat,
        output,
        done,
        input: new Writable({
          highWaterMark: WINDOW,
          // All that waits at once: a frame costs the guest as much when it carries little.
          writev: (writes, callback) => {
            const chunks = writes.map(({ chunk }) => chunk as Buffer);
            const whole = chunks.length === 1 ? chunks[0] : undefined;
            input
              .write(whole ?? Buffer.concat(chunks))
              .then(() => callback(), callback);
          },
          final: (callback) => {
            input.end();
            callback();
          },
        }),
      };
    } catch (error) {
      this.#waiting.delete(process);
      throw error;
    }
  }

  async #ended(
    process: number,
    exit: Promise<ProcessExit>,
    output: ArchiveOutput,
    words: Words,
  ): Promise<void> {
    const { agent } = this.#machine;
    try {
      const { code } = await Promise.race([
        exit,
        agent.closed.then((reason) => {
          throw new SystemError(`the container's machine ended: ${reason}`);
        }),
      ]);
      await output.ended;
      await agent.request("release", { process }).catch(() => undefined);
      if (code !== 0) {
        const why =
          words.text.trim() || `the work on its files ended with ${code}`;
        throw code === BAD_ARCHIVE
          ? new InvalidParameter(why)
          : new SystemError(why);
      }
      output.complete();
    } finally {
      this.#waiting.delete(process);
    }
  }
}

/** An output stream as a Readable; when it is destroyed, the rest is dropped. */
class ArchiveOutput extends Readable implements OutputSink {
  readonly ended: Promise<void>;
  readonly #onDestroy: () => void;
  #resolveEnded!: () => void;
  #received: { end: number; ack: (offset: number) => void } | undefined;
  #acknowledged = 0;
  /** Nobody has read what came last. */
  #full = false;
  #completed = false;

  constructor(onDestroy: () => void) {
    super({ highWaterMark: WINDOW });
    this.#onDestroy = onDestroy;
    this.ended = new Promise((resolve) => (this.#resolveEnded = resolve));
    // A failure is told by `done` in any case.
    this.on("error", () => undefined);
  }

  data(chunk: Buffer, end: number, ack: (offset: number) => void): void {
    this.#received = { end, ack };
    if (this.destroyed) return this.#acknowledge();
    this.#full = !this.push(chunk);
    // Each acknowledgement is work for the guest.
    if (end - this.#acknowledged >= WINDOW / 2) this.#acknowledgeUnlessFull();
  }

  eof(): void {
    this.#acknowledgeUnlessFull();
    this.#resolveEnded();
  }

  /** The work ended well: only then is the archive whole. */
  complete(): void {
    this.#completed = true;
    this.push(null);
  }

  override _read(): void {
    if (!this.#full) return;
    this.#full = false;
    this.#acknowledge();
  }

  override _destroy(
    error: Error | null,
    callback: (error?: Error | null) => void,
  ): void {
    this.#acknowledge();
    if (!this.#completed) this.#onDestroy();
    callback(error);
  }

  #acknowledgeUnlessFull(): void {
    if (!this.#full) this.#acknowledge();
  }

  #acknowledge(): void {
    const { end, ack } = this.#received ?? { end: 0 };
    this.#acknowledged = end;
    ack?.(end);
  }
}

/** Collects stderr. */
class Words implements OutputSink {
  text = "";

  data(chunk: Buffer, end: number, ack: (offset: number) => void): void {
    if (this.text.length < MAX_WORDS) this.text += chunk.toString("utf8");
    ack(end);
  }

  eof(): void {
    // The exit says when it is over.
  }
}
