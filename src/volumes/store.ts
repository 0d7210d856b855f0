/** Volumes on disk: `<dataRoot>/volumes/<name>/volume.json`, and the content in `_data` beside it. */
import { execFile } from "node:child_process";
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import type { Logger } from "pino";
import { z } from "zod";
import { faultPoint } from "../fault.js";
import {
  isSetAside,
  readRecord,
  syncDirectory,
  writeRecord,
} from "../state-file.js";

const run = promisify(execFile);
const RECORD_FILE = "volume.json";
/** Of a volume that is being removed. No volume has such a name. */
const REMOVED = ".removed-";

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
  #removals = 0;

  constructor(root: string, log: Logger) {
    this.#root = root;
    this.#log = log;
  }

  /** Where a volume's content is. */
  content(name: string): string {
    return path.join(this.#root, name, "_data");
  }

  /** The content's folder first: a folder without a record is no volume. */
  async create(name: string, record: VolumeRecord): Promise<void> {
    await mkdir(path.join(this.#root, name), { recursive: true, mode: 0o701 });
    try {
      await mkdir(this.content(name), { recursive: true, mode: 0o755 });
      faultPoint("volume-create.folder");
      await syncDirectory(this.#root);
      await writeRecord(path.join(this.#root, name, RECORD_FILE), record);
    } catch (error) {
      await this.#removeIfEmpty(name).catch(() => undefined);
      throw error;
    }
    faultPoint("volume-create.recorded");
  }

  /**
   * Takes the volume away under another name first: a removal that is cut short has happened, and `load` ends
   * it. What a guest wrote is removed by rm(1), which does not follow links, whatever happens meanwhile.
   */
  async remove(name: string): Promise<void> {
    const removed = `${REMOVED}${process.pid}-${this.#removals++}`;
    await rename(path.join(this.#root, name), path.join(this.#root, removed));
    await syncDirectory(this.#root);
    faultPoint("volume-rm.renamed");
    await this.#delete(removed);
    faultPoint("volume-rm.gone");
  }

  async #delete(folder: string): Promise<void> {
    const full = path.join(this.#root, folder);
    await run("rm", ["-rf", "--one-file-system", "--", full]);
  }

  /** Bytes that the content takes on the host's disk. */
  async size(name: string): Promise<number> {
    const args = ["-s", "-x", "--block-size=1", "--", this.content(name)];
    return parseInt((await run("du", args)).stdout, 10);
  }

  /**
   * Reads all records, and ends what a killed daemon has begun: a removal, or the making of a volume that has
   * neither record nor content. A damaged record is set aside, beside the content, which is left alone; so is
   * content without a record.
   */
  async load(): Promise<Map<string, VolumeRecord>> {
    await mkdir(this.#root, { recursive: true, mode: 0o701 });
    const records = new Map<string, VolumeRecord>();
    for (const name of await readdir(this.#root)) {
      if (name.startsWith(REMOVED)) {
        await this.#delete(name);
        continue;
      }
      try {
        const record = await this.#read(name);
        if (record) records.set(name, record);
        else if (!(await this.#removeIfEmpty(name))) {
          this.#log.warn(
            { volume: name, content: this.content(name) },
            "a volume without a readable record is left alone",
          );
        }
      } catch (error) {
        this.#log.error({ err: error, volume: name }, "cannot read a volume");
      }
    }
    return records;
  }

  #read(name: string): Promise<VolumeRecord | undefined> {
    const file = path.join(this.#root, name, RECORD_FILE);
    return readRecord(file, recordShape, this.#log);
  }

  /** @returns false, and does nothing, where there is any content, or a record that was set aside */
  async #removeIfEmpty(name: string): Promise<boolean> {
    const files = await readdir(path.join(this.#root, name));
    const content = await readdir(this.content(name)).catch(() => []);
    if (files.some(isSetAside) || content.length > 0) return false;
    await rm(path.join(this.#root, name), { recursive: true, force: true });
    return true;
  }
}
