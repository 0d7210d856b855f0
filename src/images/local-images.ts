/** Images that are made here or carried by hand: commit, import, save, load; and push. */
import type { Readable } from "node:stream";
import { InvalidParameter } from "../errors.js";
import { type Digest, isDigest } from "./digest.js";
import type { LayerImporter } from "./local/layer-import.js";
import { type Loaded, loadImages } from "./local/load.js";
import { makeImage, type NewImage } from "./local/new-image.js";
import { type Saved, saveImages } from "./local/save.js";
import { parsePlatform } from "./platform.js";
import type { ProgressSink } from "./progress.js";
import { pushed, type Pusher, type PushOptions } from "./push.js";
import {
  parseAnyReference,
  parseReference,
  type Reference,
} from "./reference.js";
import type { ImageStore } from "./store/image-store.js";

export interface LocalImagesOptions {
  store: ImageStore;
  layers: LayerImporter;
  pusher: Pusher;
  /** Finds an image by what a user may call it. @throws {NotFound} */
  find: (text: string) => Digest;
  publish: (
    action: string,
    actor: string,
    name: string,
    id: Digest,
  ) => Promise<void>;
}

export class LocalImages {
  readonly #options: LocalImagesOptions;

  constructor(options: LocalImagesOptions) {
    this.#options = options;
  }

  /**
   * Makes an image; see {@link NewImage}.
   * @throws {SystemError} its layer cannot be taken; nothing changed
   */
  async make(image: NewImage): Promise<Digest> {
    const { store, layers, publish } = this.#options;
    const id = await makeImage(store, layers, image);
    if (image.name) await publish("tag", id, image.name.familiar, id);
    await store.collect();
    return id;
  }

  /** The image a build made of `parent` by `key` before, if it is still there. */
  built(parent: Digest | undefined, key: string): Digest | undefined {
    return this.#options.store.catalog
      .images()
      .findLast((image) => image.buildKey === key && image.parent === parent)
      ?.id;
  }

  /** The ID of an image. @throws {NotFound} */
  idOf(reference: string): Digest {
    return this.#options.find(reference);
  }

  /** Names an image without a word about it: a build's result. */
  async name(id: Digest, name: Reference): Promise<void> {
    const { store, publish } = this.#options;
    await store.catalog.update((draft) => {
      const record = draft.images.get(id);
      if (record) {
        draft.put({ ...record, lastTagTime: new Date().toISOString() });
      }
      draft.name(name, id);
    });
    await publish("tag", id, name.familiar, id);
  }

  /**
   * `docker save`.
   * @param names of images and repositories; an ID is saved without a name
   * @throws {NotFound} one of them is not there
   */
  async save(names: readonly string[]): Promise<Readable> {
    if (names.length === 0) {
      throw new InvalidParameter("names: at least one image is required");
    }
    const { store, find, publish } = this.#options;
    const saved = new Map<Digest, Reference[]>();
    const add = (id: Digest, reference?: Reference) => {
      const references = saved.get(id) ?? [];
      saved.set(id, references);
      if (
        reference &&
        !references.some((one) => one.toString() === reference.toString())
      ) {
        references.push(reference);
      }
    };
    for (const name of names) {
      const any = parseAnyReference(name);
      if (any.kind !== "digest" && any.reference.isNameOnly) {
        // A repository's name alone stands for all of its tags.
        const tags = store.catalog.images().flatMap(({ id }) =>
          store.catalog
            .referencesOf(id)
            .filter(
              (one) =>
                one.digest === undefined && one.name === any.reference.name,
            )
            .map((one) => [id, one] as const),
        );
        if (tags.length > 0) {
          for (const [id, one] of tags) add(id, one);
          continue;
        }
      }
      const id = find(name);
      const tagged =
        any.kind !== "digest" &&
        any.reference.tag !== undefined &&
        store.catalog.resolve(any.reference) === id;
      add(id, tagged ? any.reference : undefined);
    }
    const images: Saved[] = [...saved].map(([id, references]) => ({
      id,
      references,
    }));
    for (const { id } of images) await publish("save", id, id, id);
    return saveImages(store, images);
  }

  /**
   * `docker load`. Progress is told as Docker tells it.
   * @throws {InvalidParameter} the archive is damaged, or holds no images
   */
  async load(
    archive: Readable,
    platform: string,
    progress: (line: { stream: string }) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { store, layers, publish } = this.#options;
    const silent: ProgressSink = () => undefined;
    const loaded: Loaded[] = await loadImages(store, layers, archive, {
      platform: platform === "" ? undefined : parsePlatform(platform),
      progress: silent,
      signal,
    });
    for (const { id, name } of loaded) {
      await publish("load", id, name?.familiar ?? id, id);
      progress({
        stream: name
          ? `Loaded image: ${name.familiar}\n`
          : `Loaded image ID: ${id}\n`,
      });
    }
  }

  /**
   * `docker push` of a tag, or of all tags of a repository.
   * @throws {NotFound} {@link SystemError} in Docker's words
   */
  async push(text: string, tag: string, options: PushOptions): Promise<void> {
    const { store, pusher, publish } = this.#options;
    const parsed = parseReference(text);
    if (parsed.digest !== undefined || isDigest(text)) {
      throw new InvalidParameter("cannot push a digest reference");
    }
    const all = tag === "" && parsed.isNameOnly;
    const names = all
      ? store.catalog
          .images()
          .flatMap(({ id }) => store.catalog.referencesOf(id))
          .filter((one) => one.digest === undefined && one.name === parsed.name)
      : [tag === "" ? parsed : parsed.withTag(tag)];
    options.progress({
      status: `The push refers to repository [${parsed.name}]`,
    });
    if (names.length === 0) pushed(store, parsed.withDefaultTag());
    for (const name of names) {
      const { id } = pushed(store, name);
      await pusher.push(id, name, options);
      await publish("push", name.familiar, name.familiarName, id);
    }
  }
}
