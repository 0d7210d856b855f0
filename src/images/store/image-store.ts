import { link, readFile, rename, writeFile } from "node:fs/promises";
import type { Logger } from "pino";
import { NotFound } from "../../errors.js";
import { isSetAside, syncDirectory } from "../../state-file.js";
import { type Digest, digestOf, hexOf, isDigest } from "../digest.js";
import { type ConfigFile, parseConfig } from "../manifest.js";
import { Catalog } from "./catalog.js";
import { list, remove } from "./files.js";
import { chainIdOf, LayerStore } from "./layer-store.js";
import { exists, Layout } from "./layout.js";

/** All that is on disk of images. */
export class ImageStore {
  readonly layout: Layout;
  readonly layers: LayerStore;
  readonly catalog: Catalog;
  readonly log: Logger;
  readonly #configs = new Map<Digest, ConfigFile>();
  /** Digests that unfinished work needs, and how many need each. */
  readonly #pins = new Map<Digest, number>();

  private constructor(root: string, log: Logger) {
    this.log = log;
    this.layout = new Layout(root);
    this.layers = new LayerStore(this.layout, log);
    this.catalog = new Catalog(this.layout, log);
  }

  /**
   * Opens the store, made if it is not there, and clears away what a crash left.
   * @param root folder of its own
   */
  static async open(root: string, log: Logger): Promise<ImageStore> {
    const store = new ImageStore(root, log);
    await store.layout.prepare(log);
    await store.layers.load();
    await store.catalog.load();
    for (const image of store.catalog.all()) {
      try {
        await store.config(image.id);
        const missing = image.diffIds.find(
          (diffId) => store.layers.get(diffId) === undefined,
        );
        if (missing !== undefined) {
          throw new NotFound(`layer ${missing} is missing`);
        }
      } catch (error) {
        log.error(
          { err: error, image: image.id },
          "a damaged image was dropped",
        );
        store.catalog.forget(image.id);
      }
    }
    await store.collect();
    return store;
  }

  /** An image's config. @throws when it is missing or damaged */
  async config(id: Digest): Promise<ConfigFile> {
    const known = this.#configs.get(id);
    if (known !== undefined) return known;
    const bytes = await readFile(this.layout.blob(id));
    if (digestOf(bytes) !== id) throw new Error(`blob ${id} is damaged`);
    const config = parseConfig(bytes);
    this.#configs.set(id, config);
    return config;
  }

  /** Stores a small blob. */
  async putBlob(digest: Digest, bytes: Buffer): Promise<void> {
    if (await exists(this.layout.blob(digest))) return;
    const file = this.layout.temporaryFile();
    try {
      await writeFile(file, bytes, { flush: true });
      await rename(file, this.layout.blob(digest));
      await syncDirectory(this.layout.blobs);
    } catch (error) {
      await remove(file);
      throw error;
    }
  }

  /** Takes over a verified blob's file, which stays where it is too. */
  async linkBlob(digest: Digest, file: string): Promise<void> {
    try {
      await link(file, this.layout.blob(digest));
      await syncDirectory(this.layout.blobs);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
  }

  /**
   * Keeps digests (of blobs and layers) from being collected while they are not part of an image yet.
   * @returns lets them go
   */
  pin(digests: Iterable<Digest>): () => void {
    const pinned = [...digests];
    for (const digest of pinned) {
      this.#pins.set(digest, (this.#pins.get(digest) ?? 0) + 1);
    }
    return () => {
      for (const digest of pinned.splice(0)) {
        const count = (this.#pins.get(digest) ?? 1) - 1;
        if (count === 0) this.#pins.delete(digest);
        else this.#pins.set(digest, count);
      }
    };
  }

  #collecting: Promise<void> = Promise.resolve();

  /** Resolves when a collection that began before a pin was set is over: then it is known what is there. */
  settled(): Promise<void> {
    return this.#collecting;
  }

  /** Removes files that no image and no work in progress needs. */
  collect(): Promise<void> {
    this.#collecting = this.#collecting
      .then(() => this.#collect())
      .catch((error: unknown) => {
        this.log.error(
          { err: error },
          "unused image files could not be removed",
        );
      });
    return this.#collecting;
  }

  async #collect(): Promise<void> {
    const blobs = new Set<Digest>();
    const layers = new Set<Digest>();
    const merged = new Set<string>();
    for (const { id, manifests, diffIds } of this.catalog.all()) {
      blobs.add(id);
      for (const digest of manifests) blobs.add(digest);
      for (const diffId of diffIds) layers.add(diffId);
      merged.add(`${hexOf(chainIdOf(diffIds))}.erofs`);
    }
    for (const { diffId } of this.layers.all()) {
      if (!layers.has(diffId) && !this.#pins.has(diffId)) {
        await this.layers.remove(diffId);
      }
    }
    for (const { blob } of this.layers.all()) blobs.add(blob.digest);
    for (const id of this.#configs.keys()) {
      if (!blobs.has(id)) this.#configs.delete(id);
    }
    for (const name of await list(this.layout.blobs)) {
      const digest = `sha256:${name}`;
      if (isDigest(digest) && (blobs.has(digest) || this.#pins.has(digest))) {
        continue;
      }
      await remove(`${this.layout.blobs}/${name}`);
    }
    for (const name of await list(this.layout.layers)) {
      if (isSetAside(name)) continue;
      const digest = `sha256:${name.replace(/\.[a-z]+$/, "")}`;
      if (
        isDigest(digest) &&
        (this.layers.get(digest) !== undefined || this.#pins.has(digest))
      ) {
        continue;
      }
      await remove(`${this.layout.layers}/${name}`);
    }
    for (const name of await list(this.layout.merged)) {
      // Made again when it is wanted: a pull in progress loses nothing.
      if (!merged.has(name)) await remove(`${this.layout.merged}/${name}`);
    }
    for (const name of await list(this.layout.images)) {
      const digest = `sha256:${name.replace(/\.json$/, "")}`;
      if (!name.endsWith(".json")) continue;
      if (!isDigest(digest) || this.catalog.get(digest) === undefined) {
        if (isDigest(digest) && this.#pins.has(digest)) continue;
        await remove(`${this.layout.images}/${name}`);
      }
    }
  }
}
