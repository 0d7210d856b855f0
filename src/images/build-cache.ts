/**
 * The build cache: the images that builds made on the way. One that an image users know was made from shares
 * its layers with that image and costs next to nothing; others are left of builds that failed, and of stages
 * whose files were only copied from.
 */
import { statfs } from "node:fs/promises";
import type { Filters } from "../filters.js";
import { type Digest, hexOf } from "./digest.js";
import type { ImageUsage } from "./index.js";
import type { ImageRecord } from "./store/catalog.js";
import type { ImageStore } from "./store/image-store.js";
import { createdMs } from "./views.js";

/** BuildCache of the Engine API. */
export interface BuildCacheRecord {
  ID: string;
  Parents: string[] | null;
  Type: "regular";
  Description: string;
  InUse: boolean;
  Shared: boolean;
  Size: number;
  CreatedAt: string;
  LastUsedAt: string | null;
  UsageCount: number;
}

/** What `POST /build/prune` is asked for. */
export interface BuildPrune {
  /** Also what an image was made from: its next build begins anew. */
  all: boolean;
  /** Milliseconds since the epoch: what is younger stays. */
  until: number;
  filters: Filters;
  /** Bytes of cache that may stay, the newest. */
  keepBytes: number;
  /** Enough is removed when the disk has so many bytes free. */
  freeBytes: number;
}

export const BUILD_PRUNE_FILTERS = [
  ...["until", "id", "parent", "type", "description"],
  ...["inuse", "shared", "private"],
] as const;

interface Entry {
  image: ImageRecord;
  view: BuildCacheRecord;
  created: number;
}

export class BuildCache {
  readonly #store: ImageStore;
  readonly #usage: () => ImageUsage;
  /** What builds that are under way stand on. */
  readonly #inUse = new Map<object, Digest[]>();

  constructor(store: ImageStore, usage: () => ImageUsage) {
    this.#store = store;
    this.#usage = usage;
  }

  /** Tells on which images a build stands now; none when it is over. */
  use(build: object, images: Digest[]): void {
    if (images.length > 0) this.#inUse.set(build, images);
    else this.#inUse.delete(build);
  }

  /** The image is what somebody built, though it may have no name: it is no cache. */
  async isResult(id: Digest): Promise<void> {
    if (this.#store.catalog.get(id)?.buildResult) return;
    await this.#store.catalog.update((draft) => {
      const record = draft.images.get(id);
      if (record) draft.put({ ...record, buildResult: true });
    });
  }

  async records(): Promise<BuildCacheRecord[]> {
    return (await this.#entries()).map(({ view }) => view);
  }

  /** @returns IDs of what was removed, and the bytes of layers that nothing else has */
  async prune(
    options: BuildPrune,
  ): Promise<{ CachesDeleted: string[] | null; SpaceReclaimed: number }> {
    const { filters } = options;
    const before = this.#bytes();
    const wanted = byAge(
      (await this.#entries()).filter(
        ({ view, created }) =>
          !view.InUse &&
          (options.all || !view.Shared) &&
          created <= options.until &&
          matches(filters, view),
      ),
    );
    let rest = wanted.reduce((sum, { view }) => sum + view.Size, 0);
    const gone: Digest[] = [];
    for (const { image, view } of wanted) {
      if (rest <= options.keepBytes && options.keepBytes > 0) break;
      if (options.freeBytes > 0) {
        await this.#forget(gone.slice(-1));
        if ((await this.#free()) >= options.freeBytes) break;
      }
      rest -= view.Size;
      gone.push(image.id);
    }
    await this.#forget(gone);
    await this.#store.collect();
    return {
      CachesDeleted: gone.length > 0 ? gone.map(hexOf) : null,
      SpaceReclaimed: before - this.#bytes(),
    };
  }

  async #entries(): Promise<Entry[]> {
    const { catalog, layers } = this.#store;
    const all = catalog.all();
    const inUse = new Set([...this.#inUse.values()].flat());
    const isCache = ({ id, buildKey, buildResult }: ImageRecord) =>
      buildKey !== undefined &&
      !buildResult &&
      catalog.state.unnamed.has(id) &&
      this.#usage().containersOf(id).length === 0;
    const shared = new Set<Digest>();
    for (const image of all) {
      if (isCache(image)) continue;
      for (
        let { parent } = image;
        parent !== undefined && !shared.has(parent);
        parent = catalog.get(parent)?.parent
      ) {
        shared.add(parent);
      }
    }
    return Promise.all(
      all.filter(isCache).map(async (image) => {
        const { id, parent, diffIds } = image;
        const config = await this.#store.config(id);
        const below = parent && catalog.get(parent)?.diffIds.length;
        const own = diffIds.slice(below ?? 0);
        const created = createdMs(config);
        return {
          image,
          created,
          view: {
            ID: hexOf(id),
            Parents: parent ? [hexOf(parent)] : null,
            Type: "regular" as const,
            Description: config.history?.at(-1)?.created_by ?? "",
            InUse: inUse.has(id),
            Shared: shared.has(id),
            Size: own.reduce(
              (sum, diffId) => sum + (layers.get(diffId)?.contentBytes ?? 0),
              0,
            ),
            CreatedAt: new Date(created).toISOString(),
            LastUsedAt: null,
            UsageCount: 0,
          },
        };
      }),
    );
  }

  /** What was made from it is from now on made from what it was made from, in one step nobody can repeat. */
  async #forget(ids: readonly Digest[]): Promise<void> {
    if (ids.length === 0) return;
    await this.#store.catalog.update((draft) => {
      const inUse = new Set([...this.#inUse.values()].flat());
      const gone = new Set(ids.filter((id) => !inUse.has(id)));
      for (const image of draft.images.values()) {
        let { parent } = image;
        if (gone.has(image.id) || !parent || !gone.has(parent)) continue;
        while (parent && gone.has(parent)) {
          parent = draft.images.get(parent)?.parent;
        }
        draft.put({ ...image, parent, buildKey: undefined });
      }
      for (const id of gone) draft.remove(id, false);
    });
  }

  #bytes(): number {
    return this.#store.layers
      .all()
      .reduce((sum, { contentBytes }) => sum + contentBytes, 0);
  }

  async #free(): Promise<number> {
    await this.#store.collect();
    const { bavail, bsize } = await statfs(this.#store.layout.root);
    return bavail * bsize;
  }
}

/**
 * The oldest first, and what was made from another before that: as long as it is there, the other's layers
 * are, too. A step is as old as the last that was made from it.
 */
function byAge(entries: Entry[]): Entry[] {
  const byId = new Map(entries.map((entry) => [entry.image.id, entry]));
  const last = new Map<Entry, number>();
  const depth = new Map<Entry, number>();
  for (const entry of entries) {
    let steps = 0;
    for (
      let at: Entry | undefined = entry;
      at;
      at = at.image.parent && byId.get(at.image.parent)
    ) {
      last.set(at, Math.max(last.get(at) ?? 0, entry.created));
      steps++;
    }
    depth.set(entry, steps);
  }
  return entries.sort(
    (a, b) =>
      (last.get(a) ?? 0) - (last.get(b) ?? 0) ||
      (depth.get(b) ?? 0) - (depth.get(a) ?? 0),
  );
}

function matches(filters: Filters, view: BuildCacheRecord): boolean {
  return (
    filters.fuzzyMatch("id", view.ID) &&
    (!filters.has("parent") ||
      (view.Parents ?? []).some((id) => filters.fuzzyMatch("parent", id))) &&
    filters.exactMatch("type", view.Type) &&
    filters.match("description", view.Description) &&
    flag(filters, "inuse", view.InUse) &&
    flag(filters, "shared", view.Shared) &&
    flag(filters, "private", !view.Shared)
  );
}

/** The CLI sends such a filter as `inuse=true`, `inuse=1`, or without a value. */
function flag(filters: Filters, name: string, value: boolean): boolean {
  if (!filters.has(name)) return true;
  const given = filters.get(name).filter((text) => text !== "");
  return value === (given.length === 0 || filters.boolean(name, true));
}
