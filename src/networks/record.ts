/** A network's record on disk. */
import { mkdir, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { randomBytes } from "node:crypto";
import type { Logger } from "pino";
import { z } from "zod";
import { readRecord, writeRecord } from "../state-file.js";

const specSchema = z.object({
  name: z.string(),
  internal: z.boolean(),
  attachable: z.boolean(),
  ipv4: z.boolean(),
  ipv6: z.boolean(),
  subnets: z.array(
    z.object({
      subnet: z.union([z.cidrv4(), z.cidrv6()]),
      ipRange: z.union([z.cidrv4(), z.cidrv6()]).optional(),
      gateway: z.union([z.ipv4(), z.ipv6()]).optional(),
      auxAddresses: z.record(z.string(), z.union([z.ipv4(), z.ipv6()])),
    }),
  ),
  ipamOptions: z.record(z.string(), z.string()).optional(),
  options: z.record(z.string(), z.string()),
  labels: z.record(z.string(), z.string()),
});

const recordSchema = z.object({
  version: z.literal(1),
  id: z.string().regex(/^[0-9a-f]{64}$/),
  name: z.string(),
  /** ISO 8601. */
  created: z.iso.datetime(),
  /** The host's own address with prefix length, where the network has a subnet. */
  gateway: z.cidrv4().optional(),
  gateway6: z.cidrv6().optional(),
  /** The addresses that were leased last. */
  lastAddress: z.ipv4().optional(),
  lastAddress6: z.ipv6().optional(),
  leases: z
    .array(
      z.object({
        containerId: z.string(),
        address: z.ipv4().optional(),
        address6: z.ipv6().optional(),
      }),
    )
    .default([]),
  /** Name of the Linux bridge, and what the user asked for: networks that users made. */
  bridge: z.string().optional(),
  spec: specSchema.optional(),
});
export type NetworkRecord = z.infer<typeof recordSchema>;

/** A record is saved so many ms after it changed: containers that start or end have more to do just then. */
const LATER_MS = 250;

/**
 * Keeps one network's record in a JSON file. Leases are written later and in the background, because that
 * is in no start's way: a running container's own record has its endpoint too, and a lease that was not
 * written is claimed from there.
 */
export class RecordFile {
  readonly #path: string;
  readonly #log: Logger;
  #next: NetworkRecord | undefined;
  #writing: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #removed = false;

  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
  }

  /**
   * Reads the record, or makes a new one with a fresh ID. A damaged file is set aside and named in the
   * log.
   */
  async load(name: string): Promise<NetworkRecord> {
    return (await this.read()) ?? newRecord(name);
  }

  /** As `load`, without making anything. */
  read(): Promise<NetworkRecord | undefined> {
    return readRecord(this.#path, recordSchema, this.#log);
  }

  /**
   * Writes the record now.
   * @throws the disk refused
   */
  async write(record: NetworkRecord): Promise<void> {
    await this.flush();
    await this.#put(record);
  }

  /** Deletes the file, and writes no more. */
  async remove(): Promise<void> {
    this.#removed = true;
    this.#next = undefined;
    await this.flush();
    await rm(this.#path, { force: true });
  }

  /** Writes the record soon; of several in a row only the last one. */
  save(record: NetworkRecord): void {
    if (this.#removed) return;
    this.#next = record;
    this.#timer ??= setTimeout(() => void this.flush(), LATER_MS).unref();
  }

  /** Resolves when everything saved so far is on disk, or could not be written. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#next) this.#writing ??= this.#write();
    await this.#writing;
  }

  async #put(record: NetworkRecord): Promise<void> {
    await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
    await writeRecord(this.#path, record);
  }

  async #write(): Promise<void> {
    try {
      while (this.#next) {
        const record = this.#next;
        this.#next = undefined;
        await this.#put(record);
      }
    } catch (error) {
      this.#log.error(
        { err: error, path: this.#path },
        "cannot write a network's record",
      );
    } finally {
      this.#writing = undefined;
    }
  }
}

export function newRecord(name: string): NetworkRecord {
  return {
    version: 1,
    id: randomId(),
    name,
    created: new Date().toISOString(),
    leases: [],
  };
}

/** An ID as Docker makes them: 64 hex digits. */
export function randomId(): string {
  return randomBytes(32).toString("hex");
}
