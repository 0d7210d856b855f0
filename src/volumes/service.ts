/** The volume service: every operation on volumes, behind the API and the containers. */
import type { Logger } from "pino";
import { Conflict, NotFound } from "../errors.js";
import type { EventBus } from "../events.js";
import type { Export, Volume, VolumeRequest, VolumeUsage } from "./index.js";
import { boundFolder, checkFolder, checkOptions } from "./local-driver.js";
import { ANONYMOUS_LABEL, anonymousName, checkVolumeName } from "./names.js";
import { startShareServer } from "./share-server.js";
import { type VolumeRecord, VolumeStore } from "./store.js";

export interface VolumesOptions {
  /** Holds the volumes. */
  directory: string;
  /** The program that serves mounts to guests. */
  shareServer: string;
  events: EventBus;
  log: Logger;
}

/** Which volumes a prune takes. */
export type VolumeFilter = (volume: Volume) => boolean;

export class Volumes {
  readonly #options: VolumesOptions;
  readonly #store: VolumeStore;
  readonly #records: Map<string, VolumeRecord>;
  #usage: VolumeUsage = { containersWith: () => [] };
  /** Volumes that a container which is being made is about to have, and how many such. */
  readonly #held = new Map<string, number>();
  /** The last one in a row of those who want a volume for themselves. */
  readonly #turns = new Map<string, Promise<unknown>>();

  private constructor(
    options: VolumesOptions,
    store: VolumeStore,
    records: Map<string, VolumeRecord>,
  ) {
    this.#options = options;
    this.#store = store;
    this.#records = records;
  }

  static async open(options: VolumesOptions): Promise<Volumes> {
    const store = new VolumeStore(options.directory, options.log);
    return new Volumes(options, store, await store.load());
  }

  /** To be called once, before a volume is removed. */
  useContainers(usage: VolumeUsage): void {
    this.#usage = usage;
  }

  /**
   * Makes a volume, or gives the one of that name that is there.
   * @throws {InvalidParameter} a name or an option that cannot be
   * @throws {NotFound} an unknown driver
   * @throws {NotImplemented} a kind of volume hull does not have
   */
  async create(request: VolumeRequest): Promise<Volume> {
    const given = request.name ?? "";
    const name = given === "" ? anonymousName() : checkVolumeName(given);
    const driver = request.driver || "local";
    if (driver !== "local") {
      throw new NotFound(
        `create ${name}: error looking up volume plugin ${driver}: plugin "${driver}" not found`,
      );
    }
    const options = request.options ?? {};
    checkOptions(name, options);
    return this.alone(name, async () => {
      if (!this.#records.has(name)) {
        const labels = { ...request.labels };
        if (given === "") labels[ANONYMOUS_LABEL] = "";
        const record: VolumeRecord = {
          version: 1,
          createdAt: new Date().toISOString().replace(/\.\d+/, ""),
          labels: request.labels || given === "" ? labels : null,
          options: Object.keys(options).length > 0 ? options : null,
        };
        await this.#store.create(name, record);
        this.#records.set(name, record);
        this.tell(name, "create");
      }
      return this.get(name);
    });
  }

  /** @throws {NotFound} in Docker's words */
  get(name: string): Volume {
    const record = this.#records.get(name);
    if (!record) throw new NotFound(`get ${name}: no such volume`);
    return {
      name,
      driver: "local",
      createdAt: record.createdAt,
      labels: record.labels,
      options: record.options,
      mountpoint: this.#store.content(name),
    };
  }

  /** Every volume, by name. */
  list(): Volume[] {
    return [...this.#records.keys()].sort().map((name) => this.get(name));
  }

  /** How many containers have it. */
  references(name: string): number {
    return this.#usage.containersWith(name).length;
  }

  /** Bytes that its content takes on the host; -1 where they are not the volume's own. */
  async size(volume: Volume): Promise<number> {
    if (boundFolder(volume.options)) return -1;
    return this.#store.size(volume.name);
  }

  /**
   * @param force one that is not there is fine
   * @throws {NotFound} no such volume
   * @throws {Conflict} a container has it, in Docker's words
   */
  async remove(name: string, force: boolean): Promise<void> {
    await this.alone(name, async () => {
      if (!this.#records.has(name)) {
        if (force) return;
        throw new NotFound(`get ${name}: no such volume`);
      }
      const containers = this.#usage.containersWith(name);
      if (containers.length > 0) {
        throw new Conflict(
          `remove ${name}: volume is in use - [${containers.join(", ")}]`,
        );
      }
      if (this.#held.has(name)) {
        throw new Conflict(`remove ${name}: volume is in use`);
      }
      await this.#store.remove(name);
      this.#records.delete(name);
      this.tell(name, "destroy");
    });
  }

  /** Removes the volumes that no container has and `takes` wants; gives their names and their bytes. */
  async prune(
    takes: VolumeFilter,
  ): Promise<{ names: string[]; bytes: number }> {
    const names: string[] = [];
    let bytes = 0;
    for (const volume of this.list()) {
      if (!takes(volume) || this.references(volume.name) > 0) continue;
      const size = await this.size(volume).catch(() => 0);
      try {
        await this.remove(volume.name, false);
      } catch (error) {
        // Somebody wants it after all, or was quicker.
        if (error instanceof Conflict || error instanceof NotFound) continue;
        throw error;
      }
      names.push(volume.name);
      bytes += Math.max(size, 0);
    }
    this.#options.events.publish({
      Type: "volume",
      Action: "prune",
      Actor: { ID: "", Attributes: { reclaimed: String(bytes) } },
    });
    return { names, bytes };
  }

  /** Keeps a volume from removal until the function this returns is called. */
  hold(name: string): () => void {
    this.#held.set(name, (this.#held.get(name) ?? 0) + 1);
    return () => {
      const left = (this.#held.get(name) ?? 1) - 1;
      if (left > 0) this.#held.set(name, left);
      else this.#held.delete(name);
    };
  }

  /** Does `work` while nobody else changes, or fills, the volume. */
  alone<T>(name: string, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(name) ?? Promise.resolve();
    const result = before.then(work);
    const turn = result.catch(() => undefined);
    this.#turns.set(name, turn);
    void turn.then(() => {
      if (this.#turns.get(name) === turn) this.#turns.delete(name);
    });
    return result;
  }

  /**
   * Where a volume's content is, to be served to a guest.
   * @throws {NotFound} no such volume
   * @throws {SystemError} the folder that it is a bind of is not there, or is none
   */
  async exportOf(
    name: string,
    below: string,
    readonly: boolean,
  ): Promise<Export> {
    const { options, mountpoint } = this.get(name);
    const bound = boundFolder(options);
    if (bound) await checkFolder(bound, mountpoint);
    return {
      path: bound?.path ?? mountpoint,
      below,
      readonly: readonly || bound?.readonly ? "tree" : "no",
      nonRecursive: bound !== undefined && !bound.recursive,
    };
  }

  /**
   * Serves files and folders to a machine, for as long as it runs.
   * @param socket where the machine takes the connection
   * @param directory a folder of the machine's own
   * @throws {SystemError} what cannot be served, and why
   */
  serve(
    socket: string,
    directory: string,
    exports: readonly Export[],
  ): Promise<void> {
    const { shareServer } = this.#options;
    return startShareServer({
      binary: shareServer,
      socket,
      directory,
      exports,
    });
  }

  /** Tells that something happened to a volume. */
  tell(name: string, action: string, more: Record<string, string> = {}): void {
    this.#options.events.publish({
      Type: "volume",
      Action: action,
      Actor: { ID: name, Attributes: { driver: "local", ...more } },
    });
  }
}
