import type { Logger } from "pino";
import { z } from "zod";
import { faultPoint } from "../../fault.js";
import { readRecord, writeRecord } from "../../state-file.js";
import { type Digest, hexOf, isDigest } from "../digest.js";
import { parseReference, type Reference } from "../reference.js";
import { list, remove } from "./files.js";
import type { Layout } from "./layout.js";

const DigestSchema = z.custom<Digest>(
  (value) => typeof value === "string" && isDigest(value),
);

const ImageRecordSchema = z.object({
  version: z.literal(1),
  /** Digest of the config. */
  id: DigestSchema,
  /** Manifest, and the indexes that led to it. */
  manifests: z.array(DigestSchema),
  diffIds: z.array(DigestSchema),
  /** RFC 3339. */
  lastTagTime: z.string().optional(),
  /** The image it was made from here, by commit or build. */
  parent: DigestSchema.optional(),
  /** What a build made it by; see src/builder. */
  buildKey: z.string().optional(),
  /** It was the last image of a build: more than a step on the way. */
  buildResult: z.boolean().optional(),
});
/** What is known of an image beside its config. */
export type ImageRecord = z.output<typeof ImageRecordSchema>;

const Repositories = z.object({
  version: z.literal(1),
  /** Canonical references ("docker.io/library/busybox:latest", "…@sha256:…") and the image each names. */
  references: z.record(z.string(), DigestSchema),
  /** Images without a name that are kept. */
  unnamed: z.array(DigestSchema),
  /** Images removed by force that containers still stand on. */
  held: z.array(DigestSchema),
});

/** The references and how images are kept that have none. */
export interface CatalogState {
  references: ReadonlyMap<string, Digest>;
  unnamed: ReadonlySet<Digest>;
  held: ReadonlySet<Digest>;
}

/**
 * The images and their names. repositories.json is the one file that says what there is: an image is
 * there when it is named in it, so that a pull or removal has happened entirely or not at all.
 */
export class Catalog {
  #state: CatalogState = {
    references: new Map(),
    unnamed: new Set(),
    held: new Set(),
  };
  readonly #images = new Map<Digest, ImageRecord>();
  #queue: Promise<unknown> = Promise.resolve();

  constructor(
    readonly layout: Layout,
    readonly log: Logger,
  ) {}

  /** Reads what is there. Names of images that are not are dropped. */
  async load(): Promise<void> {
    for (const name of await list(this.layout.images)) {
      if (!name.endsWith(".json")) continue;
      const record = await readRecord(
        `${this.layout.images}/${name}`,
        ImageRecordSchema,
        this.log,
      );
      if (record !== undefined && name === `${hexOf(record.id)}.json`) {
        this.#images.set(record.id, record);
      }
    }
    const stored = await readRecord(
      this.layout.repositories,
      Repositories,
      this.log,
    );
    if (stored === undefined) {
      // Lost names must not cost the images themselves.
      this.#state = { ...this.#state, unnamed: new Set(this.#images.keys()) };
      return;
    }
    const there = (id: Digest): boolean => this.#images.has(id);
    const references = new Map(
      Object.entries(stored.references).filter(
        ([reference, id]) => there(id) && isReference(reference),
      ),
    );
    this.#state = {
      references,
      unnamed: new Set(stored.unnamed.filter(there)),
      held: new Set(stored.held.filter(there)),
    };
    for (const id of this.#images.keys()) {
      if (!this.#isKept(id, this.#state)) this.#images.delete(id);
    }
  }

  /** Forgets an image whose files turned out to be missing. */
  forget(id: Digest): void {
    this.#images.delete(id);
    const { references, unnamed, held } = this.#state;
    this.#state = {
      references: new Map([...references].filter(([, image]) => image !== id)),
      unnamed: without(unnamed, id),
      held: without(held, id),
    };
  }

  get state(): CatalogState {
    return this.#state;
  }

  /** The images users see. */
  images(): ImageRecord[] {
    return [...this.#images.values()].filter(
      ({ id }) => !this.#state.held.has(id),
    );
  }

  /** Every image whose files are needed, held ones included. */
  all(): ImageRecord[] {
    return [...this.#images.values()];
  }

  get(id: Digest): ImageRecord | undefined {
    return this.#images.get(id);
  }

  /** The image a reference names. */
  resolve(reference: Reference): Digest | undefined {
    return this.#state.references.get(reference.toString());
  }

  /** An image's references, tags before digests, each in alphabetical order. */
  referencesOf(id: Digest): Reference[] {
    return [...this.#state.references]
      .filter(([, image]) => image === id)
      .map(([reference]) => parseReference(reference))
      .sort(
        (a, b) =>
          Number(a.digest !== undefined) - Number(b.digest !== undefined) ||
          (a.familiar < b.familiar ? -1 : 1),
      );
  }

  /**
   * Changes images and names, one change at a time, and returns when the change is on disk.
   * @param change works on copies; what it throws undoes all of it
   */
  update<T>(change: (draft: CatalogDraft) => T): Promise<T> {
    const next = this.#queue.then(async () => {
      const draft = new CatalogDraft(this.#state, this.#images);
      const result = change(draft);
      await this.#commit(draft);
      return result;
    });
    this.#queue = next.catch(() => {});
    return next;
  }

  async #commit(draft: CatalogDraft): Promise<void> {
    const { references, unnamed, held, added } = draft;
    for (const id of unnamed) {
      if ([...references.values()].includes(id)) unnamed.delete(id);
    }
    for (const record of added.values()) {
      await writeRecord(this.layout.image(record.id), record);
    }
    if (added.size > 0) faultPoint("pull.image-recorded");
    await writeRecord(this.layout.repositories, {
      version: 1,
      references: Object.fromEntries([...references].sort()),
      unnamed: [...unnamed],
      held: [...held],
    });
    faultPoint(added.size > 0 ? "pull.named" : "rmi.unnamed");
    this.#state = { references, unnamed, held };
    for (const record of added.values()) this.#images.set(record.id, record);
    for (const id of [...this.#images.keys()]) {
      if (this.#isKept(id, this.#state)) continue;
      this.#images.delete(id);
      await remove(this.layout.image(id));
    }
  }

  #isKept(id: Digest, state: CatalogState): boolean {
    return (
      state.unnamed.has(id) ||
      state.held.has(id) ||
      [...state.references.values()].includes(id)
    );
  }
}

/** A change being made. */
export class CatalogDraft {
  readonly references: Map<string, Digest>;
  readonly unnamed: Set<Digest>;
  readonly held: Set<Digest>;
  readonly added = new Map<Digest, ImageRecord>();

  constructor(
    state: CatalogState,
    readonly images: ReadonlyMap<Digest, ImageRecord>,
  ) {
    this.references = new Map(state.references);
    this.unnamed = new Set(state.unnamed);
    this.held = new Set(state.held);
  }

  /** Adds an image, or what is newly known of it. */
  put(record: ImageRecord): void {
    const known = this.added.get(record.id) ?? this.images.get(record.id);
    const manifests = new Set([
      ...(known?.manifests ?? []),
      ...record.manifests,
    ]);
    this.added.set(record.id, {
      ...known,
      ...record,
      manifests: [...manifests],
    });
    this.held.delete(record.id);
  }

  /** Lets a reference name an image. An image that loses its last name stays, without a name. */
  name(reference: Reference, id: Digest): void {
    const key = reference.toString();
    const before = this.references.get(key);
    this.references.set(key, id);
    if (before !== undefined && before !== id && !this.isNamed(before)) {
      this.unnamed.add(before);
    }
  }

  isNamed(id: Digest): boolean {
    return [...this.references.values()].includes(id);
  }

  /** Removes an image with all its names. @param hold its files are still needed */
  remove(id: Digest, hold: boolean): void {
    for (const [reference, image] of this.references) {
      if (image === id) this.references.delete(reference);
    }
    this.unnamed.delete(id);
    if (hold) this.held.add(id);
    else this.held.delete(id);
  }
}

function isReference(text: string): boolean {
  try {
    return !parseReference(text).isNameOnly;
  } catch {
    return false;
  }
}

function without(set: ReadonlySet<Digest>, id: Digest): Set<Digest> {
  return new Set([...set].filter((other) => other !== id));
}
