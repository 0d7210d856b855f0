/** A network's record on disk. */
import { mkdir, readFile, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { randomBytes } from "node:crypto";
import type { Logger } from "pino";
import writeFileAtomic from "write-file-atomic";
import { z } from "zod";

const recordSchema = z.object({
  version: z.literal(1),
  id: z.string().regex(/^[0-9a-f]{64}$/),
  name: z.string(),
  /** ISO 8601. */
  created: z.iso.datetime(),
  /** The host's own address with prefix length, where the network has a subnet. */
  gateway: z.cidrv4().optional(),
  /** The address that was leased last. */
  lastAddress: z.ipv4().optional(),
  leases: z
    .array(z.object({ address: z.ipv4(), containerId: z.string() }))
    .default([]),
});
export type NetworkRecord = z.infer<typeof recordSchema>;

/**
 * Keeps one network's record in a JSON file. Writing is put off and done in the background, because it
 * is in no start's way: a running container's own record has its endpoint too, and a lease that was not
 * written is claimed from there.
 */
export class RecordFile {
  readonly #path: string;
  readonly #log: Logger;
  #next: NetworkRecord | undefined;
  #writing: Promise<void> | undefined;

  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
  }

  /**
   * Reads the record, or makes a new one with a fresh ID. A damaged file is set aside and named in the
   * log.
   */
  async load(name: string): Promise<NetworkRecord> {
    let text: string;
    try {
      text = await readFile(this.#path, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
        throw error;
      }
      return newRecord(name);
    }
    try {
      return recordSchema.parse(JSON.parse(text));
    } catch (error) {
      const aside = `${this.#path}.damaged-${Date.now()}`;
      await rename(this.#path, aside);
      this.#log.error(
        { err: error, path: this.#path, aside },
        "a network's record is damaged and was set aside; the network is made anew",
      );
      return newRecord(name);
    }
  }

  /** Writes the record soon; of several in a row only the last one. */
  save(record: NetworkRecord): void {
    this.#next = record;
    this.#writing ??= this.#write();
  }

  /** Resolves when everything saved so far is on disk, or could not be written. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  async #write(): Promise<void> {
    try {
      await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
      while (this.#next) {
        const record = this.#next;
        this.#next = undefined;
        await writeFileAtomic(
          this.#path,
          `${JSON.stringify(record, null, 2)}\n`,
          { mode: 0o600 },
        );
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

function newRecord(name: string): NetworkRecord {
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
