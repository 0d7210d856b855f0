/** Templates as the driver uses them: opened for a restore, made in the background where one is missing. */
import type { Logger } from "pino";
import type { Taps } from "../index.js";
import type { NicBackend } from "./command-line.js";
import type { Platform } from "./launch.js";
import { type MachineShape, shapeName } from "./shape.js";
import { makeTemplate } from "./template-maker.js";
import {
  DamagedTemplate,
  type OpenTemplate,
  TemplateStore,
} from "./template-store.js";

/** After a template could not be made, the next try waits so long, in ms. */
const RETRY_MS = 60_000;

export interface TemplatesOptions {
  /** False: none are used and none are made; every machine is booted. */
  enabled: boolean;
  /** The templates' folder; on a disk with room for some 100 MB a template. */
  directory: string;
  /** A short path for sockets. */
  runDirectory: string;
  /** The NICs of a machine of this shape that is nobody's. */
  nics: (shape: MachineShape) => Promise<NicBackend[]>;
  taps: Taps | undefined;
  log: Logger;
}

/** What a template belongs to. */
export interface TemplatePlatform {
  platform: Platform;
  platformKey: string;
}

export class Templates {
  readonly #options: TemplatesOptions;
  readonly #store: TemplateStore;
  readonly #making = new Map<string, Promise<void>>();
  /** Of these none is there until it is made. */
  readonly #missing = new Set<string>();
  readonly #failedAt = new Map<string, number>();
  readonly #closing = new AbortController();
  #queue: Promise<void> = Promise.resolve();

  constructor(options: TemplatesOptions) {
    this.#options = options;
    this.#store = new TemplateStore(options.directory);
  }

  /** Clears what an earlier daemon left half made; before the first is opened or made. */
  async clear(): Promise<void> {
    try {
      await this.#store.removeDrafts();
    } catch (error) {
      const { message } = error as Error;
      this.#options.log.warn(
        { reason: message },
        "a machine template that was not made whole cannot be removed",
      );
    }
  }

  /** @returns undefined when there is none that can be used; then it is being made, or is to be later */
  async open(
    on: TemplatePlatform,
    shape: MachineShape,
  ): Promise<OpenTemplate | undefined> {
    const name = shapeName(shape);
    if (!this.#options.enabled || this.#missing.has(name)) return undefined;
    try {
      return await this.#store.open(on.platformKey, name);
    } catch (error) {
      if (!(error instanceof DamagedTemplate)) throw error;
      this.#options.log.warn(
        { template: name, reason: error.message },
        "a machine template is not used and will be made again",
      );
      await this.discard(on, shape);
      return undefined;
    }
  }

  /** A template turned out not to work. */
  async discard(on: TemplatePlatform, shape: MachineShape): Promise<void> {
    await this.#store
      .remove(on.platformKey, shapeName(shape))
      .catch(() => undefined);
  }

  /** Makes a template that is not there in the background; one at a time. Resolves when it was tried; never rejects. */
  make(on: TemplatePlatform, shape: MachineShape): Promise<void> {
    const name = shapeName(shape);
    const failed = this.#failedAt.get(name) ?? -Infinity;
    if (!this.#options.enabled) return Promise.resolve();
    if (this.#closing.signal.aborted) return Promise.resolve();
    if (performance.now() - failed < RETRY_MS) return Promise.resolve();
    let making = this.#making.get(name);
    if (!making) {
      making = this.#queue.then(() => this.#make(on, shape));
      this.#queue = making;
      this.#making.set(name, making);
    }
    return making;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#queue;
  }

  /** Machines that were booted while it was made ask for it again. */
  async #isThere(on: TemplatePlatform, name: string): Promise<boolean> {
    const found = await this.#store
      .open(on.platformKey, name)
      .catch(() => undefined);
    await found?.state.close();
    return found !== undefined;
  }

  async #make(on: TemplatePlatform, shape: MachineShape): Promise<void> {
    const { log, nics, taps, runDirectory } = this.#options;
    const name = shapeName(shape);
    const started = performance.now();
    let backends: NicBackend[] = [];
    try {
      if (this.#closing.signal.aborted) return;
      if (await this.#isThere(on, name)) return;
      this.#missing.add(name);
      backends = await nics(shape);
      await makeTemplate(
        this.#store,
        { ...on, shape, nics: backends, runDirectory },
        this.#closing.signal,
      );
      this.#failedAt.delete(name);
      log.info(
        { template: name, ms: Math.round(performance.now() - started) },
        "made a machine template",
      );
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      this.#failedAt.set(name, performance.now());
      log.warn(
        { template: name, reason: (error as Error).message },
        "a machine template could not be made: machines of its kind are booted",
      );
    } finally {
      this.#missing.delete(name);
      this.#making.delete(name);
      for (const nic of backends) {
        if (nic.kind === "tap") taps?.discardTap(nic.device);
      }
    }
  }
}
