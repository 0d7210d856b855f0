import { setMaxListeners } from "node:events";
import { NotFound, SystemError } from "../errors.js";
import { faultPoint } from "../fault.js";
import { type Digest, digestOf, shortId } from "./digest.js";
import {
  choose,
  type ConfigFile,
  type Descriptor,
  type Manifest,
  MAX_CONFIG,
  parseConfig,
  parseManifest,
} from "./manifest.js";
import {
  HOST_PLATFORM,
  normalised,
  type Platform,
  suitability,
} from "./platform.js";
import { layerMessage, type ProgressSink } from "./progress.js";
import { type Reference } from "./reference.js";
import type { RegistryClient } from "./registry/client.js";
import type { Repository } from "./registry/repository.js";
import type { Credentials } from "./registry/credentials.js";
import { pullError } from "./registry/errors.js";
import type { ImageStore } from "./store/image-store.js";
import type {
  LayerProgress,
  LayerTransfers,
} from "./transfer/layer-transfers.js";

/** Indexes may list indexes; nobody nests them deeper. */
const MAX_INDEX_DEPTH = 4;

export interface PullRequest {
  /** With a tag or digest. */
  reference: Reference;
  /** The host's own when undefined. */
  platform: Platform | undefined;
  credentials: Credentials;
  progress: ProgressSink;
  signal: AbortSignal;
}

export interface Pulled {
  id: Digest;
  /** Of what the tag named: the index's where there is one. */
  digest: Digest;
  /** Something was downloaded or a name has changed. */
  changed: boolean;
}

/** Pulls one image: after it, all of it is in the store, or nothing has changed. */
export class Puller {
  readonly #store: ImageStore;
  readonly #registry: RegistryClient;
  readonly #transfers: LayerTransfers;
  /** Makes the image's disk ready, so that its first container need not wait. */
  readonly #prepare: (diffIds: Digest[]) => Promise<unknown>;

  constructor(
    store: ImageStore,
    registry: RegistryClient,
    transfers: LayerTransfers,
    prepare: (diffIds: Digest[]) => Promise<unknown>,
  ) {
    this.#store = store;
    this.#registry = registry;
    this.#transfers = transfers;
    this.#prepare = prepare;
  }

  /**
   * @throws {NotFound} {@link SystemError} in Docker's words
   */
  async pull(request: PullRequest): Promise<Pulled> {
    const { reference, credentials, signal } = request;
    try {
      const found = await this.#registry.withRepository(
        reference,
        credentials,
        signal,
        (repository) => this.#find(repository, request),
      );
      return found.kind === "present"
        ? await this.#rename(found, request)
        : await this.#fetch(found, request);
    } catch (error) {
      signal.throwIfAborted();
      throw pullError(error, reference);
    }
  }

  /** Finds out what the reference names, and whether it is there already. */
  async #find(repository: Repository, request: PullRequest): Promise<Found> {
    const { reference, signal, progress } = request;
    const name = reference.digest ?? reference.tag ?? "latest";
    const platform = request.platform ?? HOST_PLATFORM;
    const head =
      reference.digest === undefined
        ? (await repository.head(name, signal))?.digest
        : (reference.digest as Digest);
    if (head !== undefined) {
      const present = await this.#present(reference, head, request.platform);
      if (present !== undefined) {
        if (reference.digest === undefined) pulling(progress, name, reference);
        return { kind: "present", id: present, digest: head };
      }
    }
    const top = await repository.manifest(head ?? name, signal);
    pulling(progress, name, reference);
    const documents = new Map<Digest, Buffer>([[top.digest, top.bytes]]);
    let document = parseManifest(top.bytes, top.mediaType);
    for (let depth = 0; document.kind === "index"; depth++) {
      if (depth === MAX_INDEX_DEPTH) {
        throw new SystemError(
          `manifest lists are nested more than ${MAX_INDEX_DEPTH} deep`,
        );
      }
      const choice = choose(document.value, platform);
      const next = await repository.manifest(choice.digest, signal);
      documents.set(next.digest, next.bytes);
      document = parseManifest(next.bytes, choice.mediaType || next.mediaType);
    }
    return {
      kind: "new",
      repository,
      digest: top.digest,
      documents,
      manifest: document.value,
    };
  }

  /** The image a digest of this repository named before, if it suits the platform asked for. */
  async #present(
    reference: Reference,
    digest: Digest,
    platform: Platform | undefined,
  ): Promise<Digest | undefined> {
    const id = this.#store.catalog.resolve(reference.withDigest(digest));
    if (id === undefined) return undefined;
    if (platform === undefined) return id;
    const { os, architecture, variant } = await this.#store.config(id);
    const own = normalised(os, architecture, variant);
    return suitability(platform, own) === undefined ? undefined : id;
  }

  async #rename(
    found: { id: Digest; digest: Digest },
    { reference }: PullRequest,
  ): Promise<Pulled> {
    const { id, digest } = found;
    const changed =
      reference.digest === undefined &&
      this.#store.catalog.resolve(tagOf(reference)) !== id;
    if (changed) {
      await this.#store.catalog.update((draft) => {
        if (!draft.images.has(id)) {
          throw new NotFound(`No such image: ${reference.familiar}`);
        }
        draft.name(tagOf(reference), id);
      });
      await this.#store.collect();
    }
    return { id, digest, changed };
  }

  async #fetch(found: FoundNew, request: PullRequest): Promise<Pulled> {
    const { repository, manifest, documents, digest } = found;
    const { signal } = request;
    const store = this.#store;
    const { config: descriptor, layers } = manifest;
    const unpin = store.pin([descriptor.digest, ...documents.keys()]);
    let unpinLayers = (): void => {};
    try {
      const configBytes = await this.#config(repository, descriptor, signal);
      const config = parseConfig(configBytes);
      checkConfig(config, layers);
      const diffIds = config.rootfs.diff_ids;
      unpinLayers = store.pin(diffIds);
      await store.settled();
      faultPoint("pull.resolved");
      await this.#layers(repository, layers, diffIds, request);
      signal.throwIfAborted();
      await this.#prepare(diffIds);
      faultPoint("pull.merged");
      for (const [key, bytes] of documents) await store.putBlob(key, bytes);
      await store.putBlob(descriptor.digest, configBytes);
      faultPoint("pull.documents-stored");
      // From here on it is done: the client may go away.
      const changed = await this.#commit(
        request.reference,
        digest,
        descriptor.digest,
        [...documents.keys()],
        diffIds,
      );
      return { id: descriptor.digest, digest, changed };
    } finally {
      unpinLayers();
      unpin();
      await store.collect();
    }
  }

  async #config(
    repository: Repository,
    { digest, size }: Descriptor,
    signal: AbortSignal,
  ): Promise<Buffer> {
    if (size > MAX_CONFIG) {
      throw new SystemError(
        `image config ${digest} is longer than ${MAX_CONFIG} bytes`,
      );
    }
    const bytes = await repository.smallBlob(digest, size, signal);
    if (digestOf(bytes) !== digest) {
      throw new SystemError(
        `image config verification failed for digest ${digest}`,
      );
    }
    return bytes;
  }

  async #layers(
    repository: Repository,
    layers: readonly Descriptor[],
    diffIds: readonly Digest[],
    request: PullRequest,
  ): Promise<void> {
    const { progress } = request;
    // One failure ends the others; the pull ends when all of them have cleared up.
    const failed = new AbortController();
    const signal = AbortSignal.any([request.signal, failed.signal]);
    // Each layer listens; there may be more than the ten after which node suspects a leak.
    setMaxListeners(0, signal);
    const seen = new Set<Digest>();
    const missing: [blob: Descriptor, diffId: Digest][] = [];
    layers.forEach((blob, index) => {
      const diffId = diffIds[index] as Digest;
      const there =
        seen.has(diffId) || this.#store.layers.get(diffId) !== undefined;
      const id = shortId(blob.digest);
      progress(layerMessage(id, there ? "Already exists" : "Pulling fs layer"));
      if (there) return;
      seen.add(diffId);
      missing.push([blob, diffId]);
    });
    const results = await Promise.allSettled(
      missing.map(async ([blob, diffId]) => {
        try {
          await this.#transfers.fetch(
            repository,
            blob,
            diffId,
            (state) => show(progress, blob, state),
            signal,
          );
        } catch (error) {
          failed.abort(error);
          throw error;
        }
      }),
    );
    request.signal.throwIfAborted();
    if (results.some(({ status }) => status === "rejected")) {
      throw failed.signal.reason;
    }
  }

  #commit(
    reference: Reference,
    digest: Digest,
    id: Digest,
    manifests: Digest[],
    diffIds: Digest[],
  ): Promise<boolean> {
    return this.#store.catalog.update((draft) => {
      draft.put({ version: 1, id, manifests, diffIds });
      const names = [reference.withDigest(digest)];
      if (reference.digest === undefined) names.push(tagOf(reference));
      const changed = names.some(
        (name) => draft.references.get(name.toString()) !== id,
      );
      for (const name of names) draft.name(name, id);
      return changed;
    });
  }
}

type Found = { kind: "present"; id: Digest; digest: Digest } | FoundNew;

interface FoundNew {
  kind: "new";
  repository: Repository;
  /** Of the topmost document. */
  digest: Digest;
  /** The manifest and the indexes above it. */
  documents: Map<Digest, Buffer>;
  manifest: Manifest;
}

function tagOf(reference: Reference): Reference {
  return reference.withTag(reference.tag ?? "latest");
}

function pulling(
  progress: ProgressSink,
  name: string,
  reference: Reference,
): void {
  progress({ status: `Pulling from ${reference.path}`, id: name });
}

function checkConfig(config: ConfigFile, layers: readonly Descriptor[]): void {
  if (config.os !== "linux") {
    throw new SystemError(
      `image operating system ${JSON.stringify(config.os)} cannot be used on this platform: operating system is not supported`,
    );
  }
  if (config.rootfs.diff_ids.length !== layers.length) {
    throw new SystemError(
      "layers from manifest don't match image configuration",
    );
  }
}

function show(
  progress: ProgressSink,
  blob: Descriptor,
  state: LayerProgress,
): void {
  const id = shortId(blob.digest);
  switch (state.status) {
    case "waiting":
      return progress(layerMessage(id, "Waiting"));
    case "downloading":
      return progress(
        layerMessage(id, "Downloading", state.current, state.total),
      );
    case "retrying":
      return progress(
        layerMessage(
          id,
          `Retrying in ${state.seconds} ${state.seconds === 1 ? "second" : "seconds"}`,
        ),
      );
    case "verifying":
      return progress(layerMessage(id, "Verifying Checksum"));
    case "downloaded":
      return progress(layerMessage(id, "Download complete"));
    case "extracting":
      return progress(
        layerMessage(id, "Extracting", state.current, state.total),
      );
    case "complete":
      return progress(layerMessage(id, "Pull complete"));
  }
}
