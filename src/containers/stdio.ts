/**
 * The meeting point of a process's streams: what it writes goes to the log and to every attached
 * client, what a client types goes to its stdin.
 */
import { Channel } from "../../protocol/index.js";
import type {
  AgentClient,
  InputStream,
  OutputSink,
} from "../hypervisor/index.js";
import type { StreamName } from "./log/json-file.js";

/** Where output is kept. Resolves to the stream offset up to which it is safe. */
export interface OutputLog {
  append(stream: StreamName, chunk: Buffer): Promise<number>;
  flush(stream: StreamName): Promise<void>;
}

/** A client that is attached to a process. */
export interface StdioClient {
  stdout: boolean;
  stderr: boolean;
  /** Resolves when the client can take more, or is gone; never rejects. */
  write(stream: StreamName, chunk: Buffer): Promise<void>;
  /** The process's output is over. */
  end(): void;
}

/** How long a client that reads nothing may hold up a process that is being killed, in ms. */
const STALL_LIMIT = 2000;

interface Attachment {
  client: StdioClient;
  /** Resolves when the client no longer counts. */
  gone: Promise<void>;
  leave: () => void;
}

export class Stdio {
  readonly #log: OutputLog | undefined;
  readonly #clients = new Set<Attachment>();
  readonly #open: Set<StreamName>;
  readonly #stdin = deferred<InputStream | undefined>();
  readonly #drained = deferred<void>();
  readonly #hurried = deferred<void>();
  #over = false;
  /** What came of the streams, and is not dealt with yet. */
  #pending = 0;
  /** Grows with whatever comes of the streams, and with whatever of it is dealt with. */
  #activity = 0;
  /** Offsets up to which the output was acknowledged. */
  readonly taken = { stdout: 0, stderr: 0 };

  constructor(streams: readonly StreamName[], log?: OutputLog) {
    this.#open = new Set(streams);
    this.#log = log;
  }

  /** Resolves when the process's streams have ended and all of them is kept and handed out. */
  get drained(): Promise<void> {
    return this.#drained.promise;
  }

  /**
   * Resolves as `drained`, or when the guest has sent nothing for so many seconds in a row in which it was
   * its turn: all that came is dealt with, and it is not made to stand still.
   * @returns whether the streams have ended
   */
  async drainedOrSilent(
    seconds: number,
    standsStill: () => boolean,
  ): Promise<boolean> {
    const { promise, resolve } = deferred<boolean>();
    let activity = this.#activity;
    let silent = 0;
    // Second by second: while this process stands still itself, nothing is counted.
    const clock = setInterval(() => {
      const itsTurn = this.#pending === 0 && !standsStill();
      silent = itsTurn && activity === this.#activity ? silent + 1 : 0;
      activity = this.#activity;
      if (silent >= seconds) resolve(false);
    }, 1000).unref();
    void this.drained.then(() => resolve(true));
    try {
      return await promise;
    } finally {
      clearInterval(clock);
    }
  }

  /** Resolves with stdin when the process runs; undefined when it will not, or has none. */
  get stdin(): Promise<InputStream | undefined> {
    return this.#stdin.promise;
  }

  /** Joins a client. @returns takes it out again; its pending writes no longer hold anything up */
  attach(client: StdioClient): () => void {
    if (this.#over) {
      client.end();
      return () => undefined;
    }
    const { promise: gone, resolve } = deferred<void>();
    const attachment: Attachment = {
      client,
      gone,
      leave: () => {
        this.#clients.delete(attachment);
        resolve();
      },
    };
    this.#clients.add(attachment);
    return attachment.leave;
  }

  /** Connects the output of a process, from given offsets when it ran before this daemon did. */
  connectOutput(
    agent: AgentClient,
    process: number,
    from: { stdout?: number; stderr?: number } = {},
  ): void {
    for (const stream of this.#open) {
      this.taken[stream] = from[stream] ?? 0;
      const channel = stream === "stdout" ? Channel.Stdout : Channel.Stderr;
      agent.output(process, channel, this.#sink(stream), from[stream]);
    }
  }

  /**
   * Connects stdin; undefined for a process without one. To be called when `spawn` was requested: the
   * agent drops what comes for a process it has not heard of.
   */
  connectInput(input: InputStream | undefined): void {
    this.#stdin.resolve(input);
  }

  /**
   * Nothing more will come: the process ended and is booked as such, it could not start, or its machine
   * is gone. Clients hear the end only now, so that what they ask next is answered by the new state.
   */
  async finish(): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    this.#stdin.resolve(undefined);
    for (const stream of this.#open) await this.#log?.flush(stream);
    this.#open.clear();
    for (const { client, leave } of [...this.#clients]) {
      client.end();
      leave();
    }
    this.#drained.resolve();
  }

  /**
   * The process is to die: clients that take nothing may not keep it from being buried. What is left of
   * its output (a window's worth) waits in memory for them.
   */
  hurry(): void {
    setTimeout(() => this.#hurried.resolve(), STALL_LIMIT).unref();
  }

  #sink(stream: StreamName): OutputSink {
    let queue: Promise<void> = Promise.resolve();
    return {
      data: (chunk, end, ack) => {
        // Of a guest that had said that the process was over, and then was silent.
        if (this.#over) return;
        this.#activity++;
        this.#pending++;
        queue = queue.then(async () => {
          // Who watches is first: the log's way to the disk begins in another thread, which has to be woken.
          const handed = [...this.#clients]
            .filter(({ client }) => client[stream])
            .map(({ client, gone }) =>
              Promise.race([
                client.write(stream, chunk),
                gone,
                this.#hurried.promise,
              ]),
            );
          const kept = this.#log?.append(stream, chunk);
          await Promise.all(handed);
          this.taken[stream] = kept ? await kept : end;
          this.#pending--;
          this.#activity++;
          ack(this.taken[stream]);
        });
      },
      eof: () => {
        this.#pending++;
        queue = queue.then(async () => {
          await this.#log?.flush(stream);
          this.#pending--;
          this.#activity++;
          this.#open.delete(stream);
          if (this.#open.size === 0) this.#drained.resolve();
        });
      },
    };
  }
}

function deferred<T>() {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((done) => (resolve = done));
  return { promise, resolve };
}
