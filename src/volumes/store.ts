/** Volumes on disk: `<dataRoot>/volumes/<name>/volume.json`, and the content in `_data` beside it. */
import { execFile } from "node:child_process";
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import type { Logger } from "pino";
import writeFileAtomic from "write-file-atomic";
import { z } from "zod";

const run = promisify(execFile);
const RECORD_FILE = "volume.json";

const recordShape = z.object({
  version: z.literal(1),
  createdAt: z.string(),
  labels: z.record(z.string(), z.string()).nullable(),
  options: z.record(z.string(), z.string()).nullable(),
});
export type VolumeRecord = z.infer<typeof recordShape>;

export class VolumeStore {
  readonly #root: string;
  readonly #log: Logger;

  constructor(root: string, log: Logger) {
    this.#root = root;
    this.#log = log;
  }

  /** Where a volume's content is. */
  content(name: string): string {
    return path.join(this.#root, name, "_data");
  }

  /** The content's folder first: a volume without a record is none. */
  async create(name: string, record: VolumeRecord): Promise<void> {
    await mkdir(path.join(this.#root, name), { recursive: true, mode: 0o701 });
    await mkdir(this.content(name), { recursive: true, mode: 0o755 });
    await writeFileAtomic(
      path.join(this.#root, name, RECORD_FILE),
      JSON.stringify(record, undefined, 2) + "\n",
      { mode: 0o600 },
    );
  }

  /**
   * The record first: a removal that is cut short leaves a folder without one. What a guest wrote is
   * removed by rm(1), which does not follow links, whatever happens meanwhile.
   */
  async remove(name: string): Promise<void> {
    const folder = path.join(this.#root, name);
    await rm(path.join(folder, RECORD_FILE), { force: true });
    await run("rm", ["-rf", "--one-file-system", "--", folder]);
  }

  /** Bytes that the content takes on the host's disk. */
  async size(name: string): Promise<number> {
    const args = ["-s", "-x", "--block-size=1", "--", this.content(name)];
    return parseInt((await run("du", args)).stdout, 10);
  }

  /** Reads all records; what is damaged is named in the log and left alone, with its content. */
  async load(): Promise<Map<string, VolumeRecord>> {
    await mkdir(this.#root, { recursive: true, mode: 0o701 });
    const records = new Map<string, VolumeRecord>();
    for (const name of await readdir(this.#root)) {
      const file = path.join(this.#root, name, RECORD_FILE);
      try {
        const text = await readFile(file, "utf8");
        records.set(name, recordShape.parse(JSON.parse(text)));
      } catch (error) {
        this.#log.warn(
          { err: error, volume: name },
          "a volume without a readable record is left alone",
        );
      }
    }
    return records;
  }
}
