/**
 * The files that hold the daemon's state: replaced as a whole, so that whoever reads one, after a crash or a
 * power failure too, finds the old content or the new one; and set aside by name when damaged.
 *
 * The npm library for this, write-file-atomic, does not sync the folder, and puts a file in place of which the
 * disk had room for a part only.
 */
import fs from "node:fs";
import { chmod, readFile, rename, rm } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import type { Logger } from "pino";
import type { z } from "zod";

/** How {@link writeState} names a file until it is whole and takes its place. */
export const HALF_WRITTEN = /\.\d+\.half$/;

export interface StateFileOptions {
  /** Permissions; those of the owner alone by default. */
  mode?: number;
  /**
   * Whether it must outlive a power failure; what may be lost is written faster. True by default. With "either" one
   * leaves what was there before or this, as a whole.
   */
  durable?: boolean | "either";
}

/** The last write under way of each file: of two, the later call has the last word. */
const writes = new Map<string, Promise<void>>();

/**
 * Replaces a file: another name, fsync, rename, fsync of the folder.
 * @throws the disk refused; the file is what it was
 */
export function writeState(
  file: string,
  text: string,
  options: StateFileOptions = {},
): Promise<void> {
  const before = writes.get(file) ?? Promise.resolve();
  const write = before
    .catch(() => undefined)
    .then(() => replace(file, text, options))
    .finally(() => {
      if (writes.get(file) === write) writes.delete(file);
    });
  writes.set(file, write);
  return write;
}

/** As {@link writeState}, of a value as JSON. */
export function writeRecord(
  file: string,
  value: unknown,
  options?: StateFileOptions,
): Promise<void> {
  return writeState(file, `${JSON.stringify(value, undefined, 2)}\n`, options);
}

async function replace(
  file: string,
  text: string,
  { mode = 0o600, durable = true }: StateFileOptions,
): Promise<void> {
  const half = `${file}.${process.pid}.half`;
  try {
    const descriptor = await open(half, "w", mode);
    try {
      await write(descriptor, text);
      // What the umask takes is nothing of the owner's.
      if (mode !== 0o600) await chmod(half, mode);
      if (durable) await sync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
    await rename(half, file);
  } catch (error) {
    await rm(half, { force: true });
    throw error;
  }
  if (durable === true) await syncDirectory(path.dirname(file));
}

/** Makes renames and new names in a folder outlive a power failure. */
export async function syncDirectory(directory: string): Promise<void> {
  const descriptor = fs.openSync(directory, "r");
  try {
    await sync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}

/*
 * Each of these is a way to another thread and back, which starts of containers have little time for: what may wait
 * for the disk goes it, and what does not (to open a folder that is in use, to close what was synced) is done at once.
 */

const open = promisify(fs.open);
const write = promisify<number, string>(fs.writeFile);

function sync(descriptor: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fs.fsync(descriptor, (error) => (error ? reject(error) : resolve()));
  });
}

/**
 * Reads a record. One that is damaged is renamed to `<file>.damaged-<ms>` and named in the log.
 * @returns undefined where there is none, or none any more
 */
export async function readRecord<Schema extends z.ZodType>(
  file: string,
  schema: Schema,
  log: Logger,
): Promise<z.output<Schema> | undefined> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    await setAside(file, error, log);
    return undefined;
  }
}

/** Whether a file was set aside by {@link setAside}. */
export function isSetAside(name: string): boolean {
  return /\.damaged-\d+$/.test(name);
}

/** Renames what cannot be read, a file or a folder, and says so; its content is kept for whoever can read it. */
export async function setAside(
  file: string,
  reason: unknown,
  log: Logger,
  as = `${file}.damaged-${Date.now()}`,
): Promise<void> {
  log.error({ err: reason, file, aside: as }, "a damaged record was set aside");
  await rename(file, as);
}
