/** Reads a container's log, from its beginning or tail, and follows it while the container runs. */
import { type FileHandle, open } from "node:fs/promises";
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
  offset: number;
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
  let at = await log.exclusive(() => startOf(log, options.tail));
  while (!signal.aborted) {
    const generation = at.generation;
    const file = await log.exclusive(() => openGeneration(log, generation));
    if (file) {
      try {
        for await (const record of records(log, file, at, options, signal)) {
          if (options.since !== undefined && record.time < options.since) {
            continue;
          }
          if (options.until !== undefined && record.time > options.until) {
            return;
          }
          yield record;
        }
      } finally {
        await file.close();
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

/** Records of one generation's file, until it ends (or, for the newest, until the log does). */
async function* records(
  log: JsonFileLog,
  file: FileHandle,
  from: Position,
  options: ReadOptions,
  signal: AbortSignal,
): AsyncGenerator<LogRecord> {
  let position = from.offset;
  let rest: Buffer = Buffer.alloc(0);
  while (!signal.aborted) {
    // Asked before the read: what is written after it makes another round.
    const change = changeOf(log, signal);
    try {
      const last = log.generation > from.generation || log.ended;
      const block = Buffer.allocUnsafe(BLOCK);
      const { bytesRead } = await file.read(block, 0, BLOCK, position);
      position += bytesRead;
      if (bytesRead > 0) {
        const bytes = Buffer.concat([rest, block.subarray(0, bytesRead)]);
        let start = 0;
        for (;;) {
          const end = bytes.indexOf(NEWLINE, start);
          if (end < 0) break;
          const record = parse(bytes.subarray(start, end));
          if (record) yield record;
          start = end + 1;
        }
        rest = bytes.subarray(start);
        if (rest.length > MAX_RECORD) rest = Buffer.alloc(0);
      } else if (last || !options.follow) {
        return;
      } else {
        await change.happened;
      }
    } finally {
      change.forget();
    }
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

async function openGeneration(
  log: JsonFileLog,
  generation: number,
): Promise<FileHandle | undefined> {
  const path = log.pathOf(generation);
  if (path === undefined) return undefined;
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
  const oldest = { generation: log.oldest, offset: 0 };
  if (tail === undefined) return oldest;
  let wanted = tail;
  for (
    let generation = log.generation;
    generation >= log.oldest;
    generation--
  ) {
    const file = await openGeneration(log, generation);
    if (!file) continue;
    try {
      const { size } = await file.stat();
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
