/**
 * The `json-file` log of a container: one JSON record a line, `{"log","stream","time"}` as Docker
 * writes it, and `offset`, the position in the process's stream behind the record. A restarted daemon
 * reads from it how far the log goes, so that no byte is missing and none is written twice.
 *
 * Files are generations: the newest is `<base>`, the one before `<base>.1`, and so on; older ones than
 * the newest may be compressed (`compressed.ts`).
 */
import { fstatSync } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { compressRotated, moveRotated } from "./compressed.js";

/** The streams a record can come from. */
export type StreamName = "stdout" | "stderr";

export interface LogRecord {
  log: string;
  stream: StreamName;
  time: string;
  offset: number;
}

export interface LogOptions {
  /** Bytes after which a new file is begun; Infinity for never. */
  maxSize: number;
  /** How many files are kept, at least 1. */
  maxFiles: number;
  /** Whether files are compressed once they are rotated. */
  compress: boolean;
  /** Told once when the log cannot be written; writing is tried again until it works. */
  onError: (error: Error) => void;
}

/** Docker splits longer lines; each part is a record, and only the last one ends in "\n". */
const MAX_LINE = 16 * 1024;
const NEWLINE = 0x0a;
const RETRY_MS = 1000;

interface Partial {
  bytes: Buffer[];
  length: number;
  /** Offset behind the last whole record. */
  recorded: number;
}

/** Appends to a container's log. Appends and rotations happen one after the other, in call order. */
export class JsonFileLog {
  readonly path: string;
  readonly #options: LogOptions;
  readonly #partial: Record<StreamName, Partial> = {
    stdout: { bytes: [], length: 0, recorded: 0 },
    stderr: { bytes: [], length: 0, recorded: 0 },
  };
  readonly #listeners = new Set<() => void>();
  #queue: Promise<void> = Promise.resolve();
  #file: FileHandle | undefined;
  #size = 0;
  #generation = 0;
  #ended = true;
  #removed = false;
  readonly #removal = new AbortController();
  #compressed: Promise<void> = Promise.resolve();

  constructor(path: string, options: LogOptions) {
    this.path = path;
    this.#options = options;
  }

  /** Grows by one with each rotation. */
  get generation(): number {
    return this.#generation;
  }

  /** Whether more may come: false between `close` and the next `begin`. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Opens the log for a run of the container, whose streams go on from these offsets. */
  begin(offsets: Record<StreamName, number>): Promise<void> {
    this.#ended = false;
    return this.#serial(async () => {
      for (const stream of ["stdout", "stderr"] as const) {
        this.#partial[stream] = {
          bytes: [],
          length: 0,
          recorded: offsets[stream],
        };
      }
      await this.#open();
      this.compress();
    });
  }

  /**
   * Takes bytes of a stream. Whole lines, and lines longer than 16 KiB in parts, are written now; the
   * rest waits for its end.
   * @returns the stream offset up to which the log is on disk
   */
  append(stream: StreamName, chunk: Buffer): Promise<number> {
    const partial = this.#partial[stream];
    const time = timestamp();
    const records: string[] = [];
    let start = 0;
    while (start < chunk.length) {
      const newline = chunk.indexOf(NEWLINE, start);
      const room = start + MAX_LINE - partial.length;
      const end = Math.min(newline < 0 ? chunk.length : newline + 1, room);
      partial.bytes.push(chunk.subarray(start, end));
      partial.length += end - start;
      if (end === newline + 1 || end === room) {
        records.push(takeRecord(partial, stream, time));
      }
      start = end;
    }
    // What waits must not keep the whole chunk it is a part of.
    if (partial.length > 0) partial.bytes = [Buffer.concat(partial.bytes)];
    const recorded = partial.recorded;
    return this.#serial(async () => {
      await this.#persist(records);
      return recorded;
    });
  }

  /** Writes what is left of a stream's last line. */
  flush(stream: StreamName): Promise<void> {
    const partial = this.#partial[stream];
    if (partial.length === 0) return Promise.resolve();
    const record = takeRecord(partial, stream, timestamp());
    return this.#serial(() => this.#persist([record]));
  }

  /** The run is over: followers end when they have read all. */
  close(): Promise<void> {
    return this.#serial(async () => {
      await this.#file?.close();
      this.#file = undefined;
      this.#ended = true;
      this.#notify();
    });
  }

  /** Calls back after each write, rotation and close. @returns ends the subscription */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The path a generation has now; undefined when it was rotated away. */
  pathOf(generation: number): string | undefined {
    const age = this.#generation - generation;
    if (age < 0 || age >= this.#options.maxFiles) return undefined;
    return age === 0 ? this.path : `${this.path}.${age}`;
  }

  /** Oldest generation that may still be there. */
  get oldest(): number {
    return this.#generation - this.#options.maxFiles + 1;
  }

  /** Resolves when nothing is being compressed; never rejects. */
  get compressed(): Promise<void> {
    return this.#compressed;
  }

  /**
   * Begins to compress what is rotated, if this log is to be, and removes what a daemon that was killed
   * left half done.
   */
  compress(): void {
    if (!this.#options.compress || this.#removed) return;
    this.#compressed = this.#compressed
      .then(() => compressRotated(this.path, this.#removal.signal))
      .catch((error: unknown) => {
        if (!this.#removed) this.#options.onError(error as Error);
      });
  }

  /** Runs `read` while no rotation can happen. */
  exclusive<T>(read: () => Promise<T>): Promise<T> {
    return this.#serial(read);
  }

  /** Nothing is written any more: the files may go. */
  async discard(): Promise<void> {
    this.#removed = true;
    this.#removal.abort();
    await this.close();
    await this.#compressed;
  }

  async #open(): Promise<void> {
    await this.#file?.close();
    this.#file = await open(this.path, "a+", 0o640);
    this.#size = await cutStump(this.#file);
  }

  /** Waits for a full disk to get room again: the process is held back, and no line is lost. */
  async #persist(records: string[]): Promise<void> {
    for (let told = false; ; told = true) {
      try {
        while (records.length > 0) {
          records = records.slice(await this.#write(records));
        }
        return;
      } catch (error) {
        if (this.#removed) return;
        if (!told) this.#options.onError(error as Error);
        await delay(RETRY_MS);
      }
    }
  }

  /** Writes as many records as the file takes. @returns how many */
  async #write(records: readonly string[]): Promise<number> {
    if (!this.#file) await this.#open();
    // A file takes records while it is below its size, as in Docker.
    if (this.#size >= this.#options.maxSize) await this.#rotate();
    let count = 0;
    let room = this.#options.maxSize - this.#size;
    for (; count < records.length && room > 0; count++) {
      room -= Buffer.byteLength(records[count] ?? "");
    }
    const bytes = Buffer.from(records.slice(0, count).join(""));
    try {
      await this.#file?.appendFile(bytes);
    } catch (error) {
      // A full disk may have taken half of it; whole records only, so that a retry is not a second copy.
      await this.#file?.truncate(this.#size).catch(() => undefined);
      throw error;
    }
    this.#size += bytes.length;
    this.#notify();
    return count;
  }

  async #rotate(): Promise<void> {
    const { compress } = this.#options;
    await this.#compressed;
    for (let age = this.#options.maxFiles - 1; age > 0; age--) {
      const from = age === 1 ? this.path : `${this.path}.${age - 1}`;
      const to = `${this.path}.${age}`;
      if (compress) await moveRotated(from, to);
      else await rename(from, to).catch(ignoreMissing);
    }
    if (this.#options.maxFiles === 1) await rm(this.path, { force: true });
    this.#generation++;
    await this.#open();
    this.compress();
  }

  #notify(): void {
    for (const listener of this.#listeners) listener();
  }

  #serial<T>(step: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(step);
    this.#queue = result.then(
      () => undefined,
      () => undefined,
    );
    return result;
  }
}

/**
 * Cuts off the beginning of a record that a killed daemon left at the end of a file: what is appended
 * behind it would be no record either.
 * @returns the file's size
 */
async function cutStump(file: FileHandle): Promise<number> {
  // At once: the kernel has it at hand.
  const { size } = fstatSync(file.fd);
  const block = Buffer.allocUnsafe(64 * 1024);
  let whole = 0;
  for (let end = size; end > 0 && whole === 0;) {
    const start = Math.max(0, end - block.length);
    const { bytesRead } = await file.read(block, 0, end - start, start);
    whole = start + block.lastIndexOf(NEWLINE, bytesRead - 1) + 1;
    if (whole === start) whole = 0;
    end = start;
  }
  if (whole < size) await file.truncate(whole);
  return whole;
}

function takeRecord(
  partial: Partial,
  stream: StreamName,
  time: string,
): string {
  partial.recorded += partial.length;
  const log = Buffer.concat(partial.bytes, partial.length).toString("utf8");
  partial.bytes = [];
  partial.length = 0;
  const record: LogRecord = { log, stream, time, offset: partial.recorded };
  return JSON.stringify(record) + "\n";
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOENT") throw error;
}

let lastNanos = 0n;

/** Now as RFC 3339 with nanoseconds; later calls give later times, so that `--since` can split them. */
export function timestamp(): string {
  const wall = BigInt(Date.now()) * 1_000_000n;
  const fine = process.hrtime.bigint() % 1_000_000n;
  lastNanos = wall + fine > lastNanos ? wall + fine : lastNanos + 1n;
  const seconds = Number(lastNanos / 1_000_000_000n);
  const nanos = String(lastNanos % 1_000_000_000n).padStart(9, "0");
  return new Date(seconds * 1000).toISOString().slice(0, 19) + `.${nanos}Z`;
}
