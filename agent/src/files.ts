/** Whole files of text: what /proc and /sys are read and written by. */
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  O_CREAT,
  O_NONBLOCK,
  O_RDONLY,
  O_TRUNC,
  O_WRONLY,
  S_IFMT,
  S_IFREG,
} from "./constants.js";

import { unless } from "./sys.js";
/** What is read of a file at first, or at a time. */
const CHUNK = 4 * 1024;
/** Of a text of which nobody says how long it may be. */
const LIMIT = 16 * 1024;
const LARGE_CHUNK = 16 * 1024;

/** Makes a folder unless it is there. */
export function makeFolder(path: string, mode: number): void {
  unless(["EEXIST"], () => sys.mkdir(AT_FDCWD, path, mode));
}

/** Writes bytes, all of them unless a range is given, to a blocking descriptor. */
export function writeAll(
  fd: number,
  bytes: ArrayBuffer,
  begin = 0,
  end = bytes.byteLength,
): void {
  for (let at = begin; at < end;) {
    const count = sys.write(fd, bytes, at, end - at);
    if (count > 0) at += count;
  }
}

/** Writes a short text in one system call, as the kernel's control files want it. */
export function writeText(path: string, text: string): void {
  const fd = sys.open(AT_FDCWD, path, O_WRONLY, 0);
  try {
    const bytes = sys.encode(text);
    sys.write(fd, bytes, 0, bytes.byteLength);
  } finally {
    sys.close(fd);
  }
}

/** Makes (or replaces) a file. */
export function createFile(path: string, text: string, mode: number): void {
  const fd = sys.open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
  try {
    sys.fchmod(fd, mode);
    writeAll(fd, sys.encode(text));
  } finally {
    sys.close(fd);
  }
}

/** Reads a text file of at most `limit` bytes; what is behind them is left out. */
export function readText(path: string, limit = LIMIT): string {
  const fd = sys.open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK, 0);
  try {
    return readAll(fd, limit);
  } finally {
    sys.close(fd);
  }
}

/** So that it is in the page cache. Nothing is done with what is no plain file, or cannot be read. */
export function readAhead(path: string, limit: number): void {
  const fd = sys.open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK, 0);
  try {
    const { mode } = sys.stat(fd, "", AT_EMPTY_PATH);
    if ((mode & S_IFMT) !== S_IFREG) return;
    const bytes = new ArrayBuffer(LARGE_CHUNK);
    for (let total = 0; total < limit;) {
      const count = sys.read(fd, bytes, 0, LARGE_CHUNK);
      if (count <= 0) return;
      total += count;
    }
  } finally {
    sys.close(fd);
  }
}

/**
 * Waits for a text of any length that ends with this character of one byte, after which nothing more is sent.
 * @param bytes is read into while they do
 * @returns it without its end
 */
export function readUntil(fd: number, end: string, bytes: ArrayBuffer): string {
  const last = end.charCodeAt(0);
  let length = 0;
  for (;;) {
    if (length === bytes.byteLength) bytes = enlarge(bytes, 2 * length);
    const count = sys.read(fd, bytes, length, bytes.byteLength - length);
    if (count > 0) length += count;
    const ended = length > 0 && new Uint8Array(bytes)[length - 1] === last;
    if (count === 0 || ended)
      return sys.decode(bytes, 0, ended ? length - 1 : length);
  }
}

/** A larger one that begins with the same. */
export function enlarge(bytes: ArrayBuffer, size: number): ArrayBuffer {
  const larger = new ArrayBuffer(size);
  sys.copy(bytes, 0, bytes.byteLength, larger, 0);
  return larger;
}

/** Text of an open file, of at most `limit` bytes. */
export function readAll(fd: number, limit: number): string {
  let bytes = new ArrayBuffer(Math.min(limit, CHUNK));
  let length = 0;
  for (;;) {
    if (length === bytes.byteLength) {
      if (length >= limit) break;
      bytes = enlarge(bytes, Math.min(limit, 2 * length));
    }
    const count = sys.read(fd, bytes, length, bytes.byteLength - length);
    if (count <= 0) break;
    length += count;
  }
  return sys.decode(bytes, 0, length);
}
