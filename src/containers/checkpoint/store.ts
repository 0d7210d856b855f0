/**
 * Checkpoints on disk: `<container>/checkpoints/<name>/`, or `<name>/` in a folder of the user's choice.
 * In each are `checkpoint.json`, the machine's memory and devices (`machine`) and a copy of the writable
 * disk as it was at that moment (`writable.img`).
 */
import { mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import {
  Conflict,
  InvalidParameter,
  NotFound,
  SystemError,
} from "../../errors.js";
import type { MachineRecord } from "../../hypervisor/index.js";
import type { Endpoint } from "../../networks/index.js";
import { writeRecord } from "../../state-file.js";
import type { Container } from "../container.js";
import type { NetworkRequest } from "../record.js";

const RECORD_FILE = "checkpoint.json";
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/** Where a checkpoint is. */
export interface CheckpointPlace {
  name: string;
  /** An absolute path; absent: the container's own folder. */
  directory?: string;
}

/** What is kept of a checkpoint beside memory and disk. */
export interface CheckpointRecord {
  version: 1;
  /** ID of the container it was made of. */
  container: string;
  /** RFC 3339. */
  created: string;
  machine: MachineRecord;
  /** How far the container's output had been taken. */
  offsets: { stdout: number; stderr: number };
  /** The networks it was on, and its places there. */
  networks: NetworkRequest[];
  endpoints: Endpoint[];
  diskBytes: number;
}

/** A checkpoint that is there. */
export interface Checkpoint {
  name: string;
  record: CheckpointRecord;
  machineFile: string;
  disk: string;
}

const recordShape = z.looseObject({
  version: z.literal(1),
  container: z.string(),
});

/** A checkpoint that is being made. */
export interface CheckpointDraft {
  machineFile: string;
  disk: string;
  /** It is there from now on. */
  finish(record: CheckpointRecord): Promise<void>;
  abandon(): Promise<void>;
}

/**
 * Begins a checkpoint in a folder that nobody takes for one yet.
 * @throws {InvalidParameter} the name or the folder cannot be
 * @throws {Conflict} there is one of that name
 */
export async function draftCheckpoint(
  container: Container,
  place: CheckpointPlace,
): Promise<CheckpointDraft> {
  const target = folderOf(container, place);
  if (await kindOf(target)) {
    throw new Conflict(
      `checkpoint with name ${place.name} already exists for container ${container.record.name}`,
    );
  }
  const draft = path.join(
    path.dirname(target),
    `.${place.name}.${container.id.slice(0, 12)}`,
  );
  await rm(draft, { recursive: true, force: true });
  await mkdir(draft, { recursive: true, mode: 0o700 });
  return {
    ...filesIn(draft),
    finish: async (record) => {
      await writeRecord(path.join(draft, RECORD_FILE), record);
      await rename(draft, target);
    },
    abandon: () => rm(draft, { recursive: true, force: true }),
  };
}

/**
 * @throws {InvalidParameter} the name or the folder cannot be
 * @throws {NotFound} there is none of that name
 * @throws {SystemError} it is damaged
 */
export async function openCheckpoint(
  container: Container,
  place: CheckpointPlace,
): Promise<Checkpoint> {
  const folder = folderOf(container, place);
  const record = await readRecord(folder);
  if (!record) throw missing(container, place);
  if (record.container !== container.id) {
    throw new Conflict(
      `checkpoint ${place.name} was made of the container ${record.container.slice(0, 12)}`,
    );
  }
  return { name: place.name, record, ...filesIn(folder) };
}

/** Names of all checkpoints, sorted. */
export async function listCheckpoints(
  container: Container,
  directory: string | undefined,
): Promise<string[]> {
  const base = baseOf(container, directory);
  const names = await readdir(base).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return [];
    throw error;
  });
  const there = await Promise.all(
    names.map(
      async (name) =>
        NAME.test(name) &&
        (await kindOf(path.join(base, name, RECORD_FILE))) === "file",
    ),
  );
  return names.filter((_, at) => there[at]).sort();
}

/**
 * @throws {InvalidParameter} the name or the folder cannot be
 * @throws {NotFound} there is none of that name
 */
export async function removeCheckpoint(
  container: Container,
  place: CheckpointPlace,
): Promise<void> {
  const folder = folderOf(container, place);
  // A folder of the user's may hold anything: only what is a checkpoint is removed.
  if ((await kindOf(path.join(folder, RECORD_FILE))) !== "file") {
    throw missing(container, place);
  }
  await rm(path.join(folder, RECORD_FILE));
  await rm(folder, { recursive: true, force: true });
}

function filesIn(folder: string) {
  return {
    machineFile: path.join(folder, "machine"),
    disk: path.join(folder, "writable.img"),
  };
}

function folderOf(container: Container, place: CheckpointPlace): string {
  if (!NAME.test(place.name)) {
    throw new InvalidParameter(
      `Invalid checkpoint ID (${place.name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
    );
  }
  return path.join(baseOf(container, place.directory), place.name);
}

function baseOf(container: Container, directory: string | undefined): string {
  if (!directory) return path.join(container.directory, "checkpoints");
  if (!path.isAbsolute(directory) || directory.includes("\0")) {
    throw new InvalidParameter(
      `invalid checkpoint directory ${JSON.stringify(directory)}: an absolute path is needed`,
    );
  }
  return directory;
}

async function readRecord(
  folder: string,
): Promise<CheckpointRecord | undefined> {
  let text: string;
  try {
    text = await readFile(path.join(folder, RECORD_FILE), "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
  try {
    return recordShape.parse(JSON.parse(text)) as unknown as CheckpointRecord;
  } catch {
    throw new SystemError(`the checkpoint in ${folder} is damaged`);
  }
}

async function kindOf(file: string): Promise<"file" | "other" | undefined> {
  try {
    return (await stat(file)).isFile() ? "file" : "other";
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
}

function missing(container: Container, { name }: CheckpointPlace): NotFound {
  return new NotFound(
    `checkpoint ${name} does not exist for container ${container.record.name}`,
  );
}
