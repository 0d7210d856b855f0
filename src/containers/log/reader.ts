/** Reads a container's log, from its beginning or tail, and follows it while the container runs. */
import { type FileHandle, open } from "node:fs/promises";
import { COMPRESSED, decompressed } from "./compressed.js";
import type { JsonFileLog, LogRecord } from "./json-file.js";

export interface ReadOptions {
  follow: boolean;
  /** How many of the last records; undefined for all. */
  tail?: number;
  /** Times in RFC 3339 with nanoseconds, as in the records; both included. */
  since?: string;
  until?: string;
}

const BLOCK = 64 * 1024;
const NEWLINE = 0x0a;
/** A record holds at most 16 KiB of log, each byte six characters when escaped. */
const MAX_RECORD = 256 * 1024;

interface Position {
  generation: number;
  /** Bytes of log, whether or not the file is compressed. */
  offset: number;
  /** Lines behind the offset that are passed over. */
  lines?: number;
}

interface Generation {
  file: FileHandle;
  compressed: boolean;
  /** Bytes of whole records, and of the file, when it was opened. */
  size: number;
}

/**
 * The records in the order they were written. A reader that is slow, or stops asking, costs the
 * container nothing: it reads the files at its own pace.
 */
export async function* readLog(
  log: JsonFileLog,
  options: ReadOptions,
  signal: AbortSignal,
): AsyncGenerator<LogRecord> {
  let at = await startOf(log, options.tail);
  while (!signal.aborted) {
    const generation = at.generation;
    const opened = await openGeneration(log, generation);
    if (opened) {
      const blocks = opened.compressed
        ? behind(decompressed(opened.file), at.offset, signal)
        : blocksOf(log, opened.file, at, options, signal);
      try {
        for await (const record of records(blocks, at.lines ?? 0)) {
          if (options.since !== undefined && record.time < options.since) {
            continue;
          }
          if (options.until !== undefined && record.time > options.until) {
            return;
          }
          yield record;
        }
      } finally {
        await opened.file.close();
      }
    }
    if (generation >= log.generation) return;
    at = { generation: Math.max(generation + 1, log.oldest), offset: 0 };
  }
}

/**
 * The last record of each stream written since `since`: how far the log of a run goes.
 * @param begin where the run's streams began
 * Meant for a daemon that comes back; reads the files backwards from the newest.
 */
export async function lastOffsets(
  log: JsonFileLog,
  since: string,
  begin = { stdout: 0, stderr: 0 },
): Promise<{ stdout: number; stderr: number }> {
  const offsets = { ...begin };
  const options = { follow: false, since };
  for await (const record of readLog(
    log,
    options,
    new AbortController().signal,
  )) {
    offsets[record.stream] = record.offset;
  }
  return offsets;
}

/** The records in a generation's bytes, after the first `skip` lines. */
async function* records(
  blocks: AsyncIterable<Buffer>,
  skip: number,
): AsyncGenerator<LogRecord> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const block of blocks) {
    const bytes = Buffer.concat([rest, block]);
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(NEWLINE, start);
      if (end < 0) break;
      const record = skip > 0 ? undefined : parse(bytes.subarray(start, end));
      if (skip > 0) skip--;
      if (record) yield record;
      start = end + 1;
    }
    rest = bytes.subarray(start);
    if (rest.length > MAX_RECORD) rest = Buffer.alloc(0);
  }
}

/** One generation's file, until it ends (or, for the newest, until the log does). */
async function* blocksOf(
  log: JsonFileLog,
  file: FileHandle,
  from: Position,
  options: ReadOptions,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  let position = from.offset;
  while (!signal.aborted) {
    // Asked before the read: what is written after it makes another round.
    const change = changeOf(log, signal);
    try {
      const last = log.generation > from.generation || log.ended;
      const block = Buffer.allocUnsafe(BLOCK);
      const { bytesRead } = await file.read(block, 0, BLOCK, position);
      position += bytesRead;
      if (bytesRead > 0) yield block.subarray(0, bytesRead);
      else if (last || !options.follow) return;
      else await change.happened;
    } finally {
      change.forget();
    }
  }
}

/** What comes behind so many bytes. */
async function* behind(
  blocks: AsyncIterable<Buffer>,
  offset: number,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  let past = offset;
  for await (const block of blocks) {
    if (signal.aborted) return;
    if (block.length > past) yield block.subarray(past);
    past = Math.max(0, past - block.length);
  }
}

/** Waits for the log to change, or the reader to be called off. */
function changeOf(log: JsonFileLog, signal: AbortSignal) {
  let resolve: () => void = () => undefined;
  const happened = new Promise<void>((done) => (resolve = done));
  const unsubscribe = log.onChange(resolve);
  signal.addEventListener("abort", resolve);
  const forget = () => {
    unsubscribe();
    signal.removeEventListener("abort", resolve);
  };
  return { happened, forget };
}

/** A record damaged by a crash of the machine is left out. */
function parse(line: Buffer): LogRecord | undefined {
  try {
    return JSON.parse(line.toString("utf8")) as LogRecord;
  } catch {
    return undefined;
  }
}

/** @returns undefined where it was rotated away, or nothing was written yet */
function openGeneration(
  log: JsonFileLog,
  generation: number,
): Promise<Generation | undefined> {
  // So that its number is the same when it is opened. That it may be compressed meanwhile does no harm:
  // the one file is there before the other is gone.
  return log.exclusive(async () => {
    const path = log.pathOf(generation);
    if (path === undefined) return undefined;
    const plain = await openIfThere(path);
    const file = plain ?? (await openIfThere(path + COMPRESSED));
    if (!file) return undefined;
    const { size } = await file.stat();
    return { file, compressed: !plain, size };
  });
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Where the last `tail` records begin; the oldest record there is when undefined or too many. */
async function startOf(
  log: JsonFileLog,
  tail: number | undefined,
): Promise<Position> {
  const newest = await log.exclusive(() => Promise.resolve(log.generation));
  const oldest = { generation: log.oldest, offset: 0 };
  if (tail === undefined) return oldest;
  let wanted = tail;
  for (let generation = newest; generation >= log.oldest; generation--) {
    const opened = await openGeneration(log, generation);
    if (!opened) continue;
    const { file, compressed, size } = opened;
    try {
      if (compressed) {
        const lines = await countLines(file);
        if (lines >= wanted) {
          return { generation, offset: 0, lines: lines - wanted };
        }
        wanted -= lines;
        continue;
      }
      if (wanted === 0) return { generation, offset: size };
      const found = await seekBack(file, size, wanted);
      if (found.offset !== undefined) {
        return { generation, offset: found.offset };
      }
      wanted -= found.lines;
    } finally {
      await file.close();
    }
  }
  return oldest;
}

async function countLines(compressed: FileHandle): Promise<number> {
  let lines = 0;
  for await (const block of decompressed(compressed)) {
    for (let at = -1; (at = block.indexOf(NEWLINE, at + 1)) >= 0;) lines++;
  }
  return lines;
}

/** Offset behind the newline that stands before the last `wanted` lines, or how many lines there are. */
async function seekBack(
  file: FileHandle,
  size: number,
  wanted: number,
): Promise<{ offset?: number; lines: number }> {
  const block = Buffer.allocUnsafe(BLOCK);
  let newlines = 0;
  for (let end = size; end > 0;) {
    const start = Math.max(0, end - BLOCK);
    const { bytesRead } = await file.read(block, 0, end - start, start);
    for (let i = bytesRead - 1; i >= 0; i--) {
      if (block[i] !== NEWLINE) continue;
      // The first newline met ends the last line.
      if (newlines === wanted) return { offset: start + i + 1, lines: wanted };
      newlines++;
    }
    end = start;
  }
  return newlines === wanted
    ? { offset: 0, lines: wanted }
    : { lines: newlines };
}
