/** Container records on disk: `<dataRoot>/containers/<id>/container.json`, one file a container. */
import { mkdir, readdir, readFile, rm, rmdir, unlink } from "node:fs/promises";
import path from "node:path";
import type { Logger } from "pino";
import { faultPoint } from "../fault.js";
import {
  setAside,
  type StateFileOptions,
  syncDirectory,
  writeRecord,
} from "../state-file.js";
import {
  type ContainerRecord,
  type NetworkRequest,
  RECORD_VERSION,
} from "./record.js";

const RECORD_FILE = "container.json";
const ID = /^[0-9a-f]{64}$/;

export class ContainerStore {
  readonly #root: string;
  readonly #log: Logger;

  constructor(dataRoot: string, log: Logger) {
    this.#root = path.join(dataRoot, "containers");
    this.#log = log;
  }

  /** The folder that holds all of a container's files. */
  directory(id: string): string {
    return path.join(this.#root, id);
  }

  async create(id: string): Promise<void> {
    await mkdir(this.directory(id), { recursive: true, mode: 0o710 });
  }

  /** Resolves when the folders made so far outlive a power failure. */
  sync(): Promise<void> {
    return syncDirectory(this.#root);
  }

  async save(
    record: ContainerRecord,
    options?: StateFileOptions,
  ): Promise<void> {
    const file = path.join(this.directory(record.id), RECORD_FILE);
    await writeRecord(file, record, options);
  }

  /** Takes the record away first: a removal that is cut short leaves a folder without a record. */
  async remove(id: string): Promise<void> {
    const directory = this.directory(id);
    const record = path.join(directory, RECORD_FILE);
    await unlink(record).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
    faultPoint("rm.record-gone");
    try {
      // As a rule there are only files: this takes a third of the time.
      const names = await readdir(directory);
      await Promise.all(
        names.map((name) => unlink(path.join(directory, name))),
      );
      await rmdir(directory);
    } catch {
      await rm(directory, { recursive: true, force: true });
    }
  }

  /**
   * Reads all records. A damaged one is set aside as `<id>.damaged-<ms>` and named in the log; a folder
   * without a record is what a cut-short create or remove left, and goes.
   */
  async load(): Promise<ContainerRecord[]> {
    await mkdir(this.#root, { recursive: true, mode: 0o710 });
    const names = await readdir(this.#root);
    const records = await Promise.all(
      names.filter((name) => ID.test(name)).map((name) => this.#read(name)),
    );
    return records.filter((record) => record !== undefined);
  }

  async #read(id: string): Promise<ContainerRecord | undefined> {
    const file = path.join(this.directory(id), RECORD_FILE);
    try {
      const record = JSON.parse(
        await readFile(file, "utf8"),
      ) as ContainerRecord;
      if (record.version !== RECORD_VERSION || record.id !== id) {
        throw new Error(`not a version ${RECORD_VERSION} record of ${id}`);
      }
      // Before containers could ask anything of a network, its name was all there was.
      record.networks = record.networks.map((one: NetworkRequest | string) =>
        typeof one === "string" ? { network: one } : one,
      );
      return record;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") {
        await rm(this.directory(id), { recursive: true, force: true });
        return undefined;
      }
      await setAside(this.directory(id), error, this.#log);
      return undefined;
    }
  }
}
