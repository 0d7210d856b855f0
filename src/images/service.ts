import { join } from "node:path";
import type { Logger } from "pino";
import { Conflict, InvalidParameter, NotFound } from "../errors.js";
import type { EventBus } from "../events.js";
import { Filters } from "../filters.js";
import type { Disk } from "../hypervisor/index.js";
import { BuildCache } from "./build-cache.js";
import { type Digest, isDigest } from "./digest.js";
import type { Image, ImageSource, ImageUsage } from "./index.js";
import { Erofs } from "./layers/erofs.js";
import { DEFAULT_LIMITS, type LayerLimits } from "./layers/layer-filter.js";
import { listImages } from "./list.js";
import { LocalImages } from "./local-images.js";
import { LayerImporter } from "./local/layer-import.js";
import { parsePlatform, platformWarning } from "./platform.js";
import { Puller } from "./pull.js";
import { Pusher } from "./push.js";
import type { ProgressSink } from "./progress.js";
import {
  parseAnyReference,
  parseReference,
  type Reference,
} from "./reference.js";
import { RegistryClient } from "./registry/client.js";
import { type Credentials } from "./registry/credentials.js";
import {
  type DistributionInspect,
  inspectDistribution,
} from "./distribution.js";
import type { RegistryOptions } from "./registry/endpoints.js";
import { pullError } from "./registry/errors.js";
import type { IndexSearch } from "./registry/search.js";
import { type Removal, removeImage } from "./removal.js";
import { searchFilter, searchResult, type SearchResult } from "./search.js";
import { chainIdOf } from "./store/layer-store.js";
import { ImageStore } from "./store/image-store.js";
import {
  DOWNLOAD_DEFAULTS,
  type DownloadOptions,
} from "./transfer/download.js";
import { LayerTransfers } from "./transfer/layer-transfers.js";
import {
  containerConfig,
  createdMs,
  type DeletedItem,
  type HistoryItem,
  historyView,
  type ImageFacts,
  type ImageInspect,
  type ImageSummary,
  inspectView,
  repoDigests,
  repoTags,
} from "./views.js";

export interface ImageServiceOptions {
  /** Everything of images is kept in its folder "images". */
  dataRoot: string;
  events: EventBus;
  log: Logger;
  /** Where mkfs.erofs is looked for, in this order: paths, or names looked up in PATH. */
  mkfsErofs: readonly string[];
  registry: RegistryOptions;
  limits?: Partial<LayerLimits>;
  download?: Partial<DownloadOptions>;
}

export interface PullOptions {
  /** "os/architecture[/variant]"; the host's own when "". */
  platform: string;
  credentials: Credentials;
  progress: ProgressSink;
  /** Aborted when the client goes away: the pull leaves nothing behind then. */
  signal: AbortSignal;
}

/** Images: pulled, listed, named, removed, and given to containers as disks. */
export class ImageService implements ImageSource {
  /** Commit, import, save, load, and push. */
  readonly local: LocalImages;
  readonly buildCache: BuildCache;
  readonly #store: ImageStore;
  readonly #registry: RegistryClient;
  readonly #puller: Puller;
  readonly #events: EventBus;
  readonly #findErofs: () => Promise<Erofs>;
  readonly #unsubscribe: () => void;
  #usage: ImageUsage = { containersOf: () => [] };

  private constructor(store: ImageStore, options: ImageServiceOptions) {
    this.#store = store;
    this.#events = options.events;
    this.#registry = new RegistryClient(options.registry);
    let erofs: Erofs | undefined;
    // Looked for when it is needed, so that a daemon without it still lists and removes.
    this.#findErofs = async () =>
      (erofs ??= await Erofs.find(options.mkfsErofs));
    this.#puller = new Puller(
      store,
      this.#registry,
      new LayerTransfers(
        store,
        this.#findErofs,
        { ...DEFAULT_LIMITS, ...options.limits },
        { ...DOWNLOAD_DEFAULTS, ...options.download },
      ),
      (diffIds) => this.#disk(diffIds),
    );
    this.buildCache = new BuildCache(store, () => this.#usage);
    this.local = new LocalImages({
      store,
      layers: new LayerImporter(store, this.#findErofs, {
        ...DEFAULT_LIMITS,
        ...options.limits,
      }),
      pusher: new Pusher(store, this.#registry),
      find: (text) => this.#find(text),
      publish: (...words) => this.#publish(...words),
    });
    // The last container of an image that was removed by force takes its files along.
    this.#unsubscribe = options.events.subscribe(({ Type, Action }) => {
      if (Type !== "container" || Action !== "destroy") return;
      this.releaseUnused().catch((error: unknown) => {
        options.log.error({ err: error }, "unused images were not removed");
      });
    });
  }

  /**
   * Opens the images of a data root, clearing away what a crash left.
   * @throws {SystemError} written by a newer hull
   */
  static async open(options: ImageServiceOptions): Promise<ImageService> {
    const root = join(options.dataRoot, "images");
    const store = await ImageStore.open(root, options.log);
    return new ImageService(store, options);
  }

  /** Tells who knows of the containers made from images. To be called before anything is removed. */
  useContainers(usage: ImageUsage): void {
    this.#usage = usage;
  }

  /** Removes the files of images that were removed by force while containers stood on them. */
  async releaseUnused(): Promise<void> {
    const held = [...this.#store.catalog.state.held].filter(
      (id) => this.#usage.containersOf(id).length === 0,
    );
    if (held.length === 0) return;
    await this.#store.catalog.update((draft) => {
      for (const id of held) draft.held.delete(id);
    });
    await this.#store.collect();
  }

  /** Ends connections to registries. */
  close(): Promise<void> {
    this.#unsubscribe();
    return this.#registry.close();
  }

  /** How many images there are. */
  get count(): number {
    return this.#store.catalog.images().length;
  }

  async get(reference: string): Promise<Image> {
    const { id, config, references } = await this.#facts(this.#find(reference));
    return {
      id,
      repoTags: repoTags(references),
      repoDigests: repoDigests(references),
      config: containerConfig(config),
      architecture: config.architecture,
      os: config.os,
    };
  }

  /** @throws {NotFound} no such image, or a layer of it is missing */
  async disk(imageId: string): Promise<Disk> {
    const record = isDigest(imageId)
      ? this.#store.catalog.get(imageId)
      : undefined;
    if (record === undefined) throw new NotFound(`No such image: ${imageId}`);
    return this.#disk(record.diffIds);
  }

  async #disk(diffIds: Digest[]): Promise<Disk> {
    return this.#store.layers.disk(diffIds, this.#findErofs);
  }

  /**
   * Pulls one image, or all tags of a repository when the reference has neither tag nor digest.
   * @throws {NotFound} {@link SystemError} {@link InvalidParameter} in Docker's words; nothing changed
   */
  async pull(reference: Reference, options: PullOptions): Promise<void> {
    const { credentials, progress, signal } = options;
    const platform =
      options.platform === "" ? undefined : parsePlatform(options.platform);
    // Said before anything is downloaded.
    await this.#findErofs();
    await this.releaseUnused();
    for (const one of await this.#tagsOf(reference, credentials, signal)) {
      const { id, digest, changed } = await this.#puller.pull({
        reference: one,
        platform,
        credentials,
        progress,
        signal,
      });
      progress({ status: `Digest: ${digest}` });
      progress({
        status: `Status: ${changed ? "Downloaded newer image" : "Image is up to date"} for ${one.familiar}`,
      });
      await this.#publish("pull", one.familiar, one.familiarName, id);
      // One that is no index has a platform of its own, and comes whatever was asked for.
      platformWarning(
        one.familiar,
        await this.#store.config(id),
        options.platform,
      );
    }
  }

  async #tagsOf(
    reference: Reference,
    credentials: Credentials,
    signal: AbortSignal,
  ): Promise<Reference[]> {
    if (!reference.isNameOnly) return [reference];
    try {
      const tags = await this.#registry.withRepository(
        reference,
        credentials,
        signal,
        (repository) => repository.tags(signal),
      );
      return tags.map((tag) => reference.withTag(tag));
    } catch (error) {
      signal.throwIfAborted();
      throw pullError(error, reference);
    }
  }

  /**
   * What a registry has under a name, without pulling it.
   * @throws {RegistryError} {@link InvalidParameter}
   */
  distribution(
    name: string,
    credentials: Credentials,
    signal: AbortSignal,
  ): Promise<DistributionInspect> {
    const reference = parseReference(name).withDefaultTag();
    return inspectDistribution(this.#registry, reference, credentials, signal);
  }

  /**
   * Asks Docker Hub, or the index that the term names, what it has.
   * @throws {InvalidParameter} a term, limit or filter that cannot be, or a host that is no index
   * @throws {SystemError} the index does not answer
   */
  async search(search: IndexSearch, filters: Filters): Promise<SearchResult[]> {
    const keeps = searchFilter(filters);
    if (keeps === undefined) return [];
    const found = await this.#registry.search(search);
    return found.filter(keeps).map(searchResult);
  }

  /**
   * Checks credentials at a registry, for `docker login`.
   * @throws {RegistryError} not reached or refused
   */
  login(
    domain: string,
    credentials: Credentials,
    signal: AbortSignal,
  ): Promise<void> {
    return this.#registry.login(domain, credentials, signal);
  }

  /**
   * @param until of the filter, in milliseconds since the epoch; Infinity without
   * @throws {NotFound} an image named by a filter is not there
   */
  async list(
    filters: Filters,
    options: {
      sharedSize?: boolean;
      until?: number;
      /** Also what builds made on the way to an image. */
      all?: boolean;
      countContainers?: boolean;
    } = {},
  ): Promise<ImageSummary[]> {
    const timeOf = async (name: string): Promise<number | undefined> => {
      const [reference] = filters.get(name);
      if (reference === undefined) return undefined;
      return createdMs(await this.#store.config(this.#find(reference)));
    };
    const summaries = listImages(await this.#allFacts(), {
      filters,
      sharedSize: options.sharedSize ?? false,
      until: options.until ?? Infinity,
      before: await timeOf("before"),
      since: await timeOf("since"),
      ...(options.countContainers === true
        ? {
            containers: (id: string) => this.#usage.containersOf(id).length,
          }
        : {}),
    });
    const parents = this.#parents();
    return summaries
      .filter(
        ({ Id, RepoTags, RepoDigests }) =>
          options.all === true ||
          RepoTags.length + RepoDigests.length > 0 ||
          !parents.has(Id as Digest),
      )
      .map((summary) => ({
        ...summary,
        ParentId: this.#store.catalog.get(summary.Id as Digest)?.parent ?? "",
      }));
  }

  /** Images that others were made from by commit or build. */
  #parents(): Set<Digest> {
    return new Set(
      this.#store.catalog.all().flatMap(({ parent }) => parent ?? []),
    );
  }

  /** @throws {NotFound} no such image */
  async inspect(reference: string): Promise<ImageInspect> {
    return inspectView(await this.#facts(this.#find(reference)));
  }

  /** @throws {NotFound} no such image */
  async history(reference: string): Promise<HistoryItem[]> {
    return historyView(await this.#facts(this.#find(reference)));
  }

  /**
   * Gives an image another name.
   * @param tag "" for what `repository` says, or "latest"
   * @throws {NotFound} {@link InvalidParameter}
   */
  async tag(image: string, repository: string, tag: string): Promise<void> {
    const parsed = parseReference(repository);
    if (parsed.digest !== undefined) {
      throw new InvalidParameter(
        "refusing to create a tag with a digest reference",
      );
    }
    const name = tag === "" ? parsed.withDefaultTag() : parsed.withTag(tag);
    if (name.familiarName === "sha256") {
      throw new InvalidParameter(
        "refusing to create an ambiguous tag using digest algorithm as name",
      );
    }
    const id = this.#find(image);
    await this.#store.catalog.update((draft) => {
      const record = draft.images.get(id);
      if (record === undefined || draft.held.has(id)) {
        throw new NotFound(`No such image: ${image}`);
      }
      draft.put({ ...record, lastTagTime: new Date().toISOString() });
      draft.name(name, id);
    });
    await this.#publish("tag", id, name.familiar, id);
  }

  /**
   * Removes a name, or an image with its last name.
   * @throws {NotFound} no such image
   * @throws {Conflict} it is used, or has more names, and is not to be forced
   */
  async remove(reference: string, force: boolean): Promise<DeletedItem[]> {
    await this.releaseUnused();
    const removal = await this.#remove(reference, force);
    await this.#store.collect();
    return removal.items;
  }

  async #remove(reference: string, force: boolean): Promise<Removal> {
    const id = this.#find(reference);
    const labels = await this.#labels(id);
    const parent = this.#store.catalog.get(id)?.parent;
    const removal = await removeImage(
      this.#store.catalog,
      this.#usage,
      reference,
      id,
      force,
    );
    if (removal.deleted)
      removal.items.push(...(await this.#dropParents(parent)));
    const told = removal.untagged.map(() => "untag");
    if (removal.deleted) told.push("delete");
    for (const action of told) {
      this.#events.publish({
        Type: "image",
        Action: action,
        Actor: { ID: id, Attributes: { ...labels, name: id } },
      });
    }
    return removal;
  }

  /** What a build made on the way to an image goes with it. */
  async #dropParents(parent: Digest | undefined): Promise<DeletedItem[]> {
    const dropped: DeletedItem[] = [];
    for (let id = parent; id !== undefined;) {
      const record = this.#store.catalog.get(id);
      const needed =
        record === undefined ||
        !this.#store.catalog.state.unnamed.has(id) ||
        this.#parents().has(id) ||
        this.#usage.containersOf(id).length > 0;
      if (needed) break;
      const gone: Digest = id;
      await this.#store.catalog.update((draft) => draft.remove(gone, false));
      dropped.push({ Deleted: gone });
      id = record.parent;
    }
    return dropped;
  }

  /**
   * Removes images that no container uses and that have no tag, or (dangling=false) all unused ones.
   * @param until of the filter, in milliseconds since the epoch
   */
  async prune(
    filters: Filters,
    until = Infinity,
  ): Promise<{ ImagesDeleted: DeletedItem[] | null; SpaceReclaimed: number }> {
    filters.validate(["dangling", "label", "label!", "until"]);
    const danglingOnly = filters.boolean("dangling", true);
    await this.releaseUnused();
    const before = this.#bytes();
    const deleted: DeletedItem[] = [];
    const labels = new Filters(
      ["label", "label!"]
        .filter((name) => filters.has(name))
        .map((name) => [name, filters.get(name)] as const),
    );
    for (const { Id, RepoTags, RepoDigests } of await this.list(labels, {
      until,
    })) {
      if (danglingOnly && RepoTags.length > 0) continue;
      if (this.#usage.containersOf(Id).length > 0) continue;
      const names = [...RepoTags, ...RepoDigests];
      for (const name of names.length === 0 ? [Id] : names) {
        try {
          deleted.push(...(await this.#remove(name, false)).items);
        } catch (error) {
          // Gone with a name before, or taken into use meanwhile.
          if (!(error instanceof NotFound || error instanceof Conflict)) {
            throw error;
          }
        }
      }
    }
    await this.#store.collect();
    const SpaceReclaimed = before - this.#bytes();
    this.#events.publish({
      Type: "image",
      Action: "prune",
      Actor: { ID: "", Attributes: { reclaimed: `${SpaceReclaimed}` } },
    });
    return {
      ImagesDeleted: deleted.length === 0 ? null : deleted,
      SpaceReclaimed,
    };
  }

  /** Bytes of all layers' contents, as images' sizes are counted. */
  get layersSize(): number {
    return this.#bytes();
  }

  #bytes(): number {
    return this.#store.layers
      .all()
      .reduce((total, { contentBytes }) => total + contentBytes, 0);
  }

  /** Finds an image by what a user may call it. */
  #find(text: string): Digest {
    const { catalog } = this.#store;
    const any = parseAnyReference(text);
    const visible = (id: string): id is Digest =>
      isDigest(id) &&
      catalog.get(id) !== undefined &&
      !catalog.state.held.has(id);
    if (any.kind === "digest") {
      if (visible(any.digest)) return any.digest;
      throw new NotFound(`No such image: ${any.digest}`);
    }
    const { reference } = any;
    const wanted =
      reference.digest === undefined
        ? reference.withDefaultTag()
        : reference.withDigest(reference.digest);
    const named = catalog.resolve(wanted);
    if (named !== undefined && visible(named)) return named;
    const matches = catalog
      .images()
      .map(({ id }) => id)
      .filter((id) => isSearchPrefix(id, text));
    const [match] = matches;
    if (match !== undefined && matches.length === 1) return match;
    throw new NotFound(`No such image: ${wanted.familiar}`);
  }

  async #facts(id: Digest): Promise<ImageFacts> {
    const { catalog, layers, layout } = this.#store;
    const record = catalog.get(id);
    if (record === undefined) throw new NotFound(`No such image: ${id}`);
    const { diffIds } = record;
    return {
      id,
      config: await this.#store.config(id),
      references: catalog.referencesOf(id),
      layerSizes: diffIds.map(
        (diffId) => layers.get(diffId)?.contentBytes ?? 0,
      ),
      lastTagTime: record.lastTagTime,
      rootfs: [
        layout.mergedOf(chainIdOf(diffIds)),
        ...diffIds.map((diffId) => layout.layer(diffId)),
      ],
    };
  }

  async #allFacts(): Promise<ImageFacts[]> {
    const facts: ImageFacts[] = [];
    for (const { id } of this.#store.catalog.images()) {
      // An image may go while the list is made.
      if (this.#store.catalog.get(id) !== undefined) {
        facts.push(await this.#facts(id));
      }
    }
    return facts;
  }

  async #labels(id: Digest): Promise<Record<string, string>> {
    const config = await this.#store.config(id);
    return config.config?.Labels ?? {};
  }

  async #publish(
    action: string,
    actor: string,
    name: string,
    id: Digest,
  ): Promise<void> {
    const labels = await this.#labels(id);
    this.#events.publish({
      Type: "image",
      Action: action,
      Actor: { ID: actor, Attributes: { ...labels, name } },
    });
  }
}

function isSearchPrefix(id: Digest, text: string): boolean {
  if (text.startsWith("sha256:")) return id.startsWith(text);
  return (
    /^[a-f0-9]+$/.test(text) && id.slice("sha256:".length).startsWith(text)
  );
}
