/** `docker push`: blobs the registry lacks, then the manifest. */
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { pipeline, type Readable, Transform } from "node:stream";
import { NotFound, SystemError } from "../errors.js";
import { type Digest, shortId } from "./digest.js";
import { type OwnManifest, ownManifest } from "./local/own-manifest.js";
import { layerMessage, type ProgressSink } from "./progress.js";
import type { Reference } from "./reference.js";
import type { RegistryClient } from "./registry/client.js";
import type { Credentials } from "./registry/credentials.js";
import { RegistryError } from "./registry/errors.js";
import type { Repository } from "./registry/repository.js";
import type { ImageStore } from "./store/image-store.js";
import { Semaphore } from "./transfer/semaphore.js";

/** Docker's default. */
const PARALLEL_UPLOADS = 5;
const INTERVAL_MS = 100;

export interface PushOptions {
  credentials: Credentials;
  progress: ProgressSink;
  /** Tells clients what was pushed. */
  result: (aux: { Tag: string; Digest: string; Size: number }) => void;
  signal: AbortSignal;
}

export class Pusher {
  readonly #store: ImageStore;
  readonly #registry: RegistryClient;

  constructor(store: ImageStore, registry: RegistryClient) {
    this.#store = store;
    this.#registry = registry;
  }

  /**
   * Pushes an image under a tag.
   * @throws {SystemError} the registry's error, in Docker's words
   */
  async push(id: Digest, name: Reference, options: PushOptions): Promise<void> {
    const { credentials, signal, progress } = options;
    const store = this.#store;
    const manifest = await ownManifest(store, id, "docker");
    const unpin = store.pin([
      id,
      ...manifest.layers.flatMap(({ digest, diffId }) => [digest, diffId]),
    ]);
    try {
      for (const { diffId } of uploads(manifest)) {
        progress(layerMessage(shortId(diffId), "Preparing"));
      }
      await this.#registry.withRepository(
        name,
        credentials,
        signal,
        (repository) => this.#send(repository, manifest, id, name, options),
        "push",
      );
    } catch (error) {
      signal.throwIfAborted();
      throw error instanceof RegistryError
        ? new SystemError(error.message, { cause: error })
        : error;
    } finally {
      unpin();
    }
    // The registry's digest is one of the image's names from now on.
    await store.putBlob(manifest.digest, manifest.bytes);
    await store.catalog.update((draft) => {
      const record = draft.images.get(id);
      if (record === undefined) return;
      draft.put({ ...record, manifests: [manifest.digest] });
      draft.name(name.withDigest(manifest.digest), id);
    });
  }

  async #send(
    repository: Repository,
    manifest: OwnManifest,
    id: Digest,
    name: Reference,
    options: PushOptions,
  ): Promise<void> {
    const { signal, progress, result } = options;
    const tag = name.tag ?? "latest";
    const slots = new Semaphore(PARALLEL_UPLOADS);
    const failed = new AbortController();
    const either = AbortSignal.any([signal, failed.signal]);
    const results = await Promise.allSettled(
      uploads(manifest).map(async (layer) => {
        if (slots.busy)
          progress(layerMessage(shortId(layer.diffId), "Waiting"));
        try {
          await slots.run(either, () =>
            this.#layer(repository, layer, id, name, options, either),
          );
        } catch (error) {
          failed.abort(error);
          throw error;
        }
      }),
    );
    if (results.some(({ status }) => status === "rejected")) {
      throw failed.signal.reason;
    }
    const config = await readFile(this.#store.layout.blob(id));
    const descriptor = { digest: id, size: config.length };
    if (!(await repository.hasBlob(id, signal))) {
      await repository.putBlob(descriptor, () => config, undefined, signal);
    }
    await repository.putManifest(
      tag,
      manifest.mediaType,
      manifest.bytes,
      signal,
    );
    const { digest, bytes } = manifest;
    progress({
      status: `${tag}: digest: ${digest} size: ${bytes.length}`,
    });
    result({ Tag: tag, Digest: digest, Size: bytes.length });
  }

  async #layer(
    repository: Repository,
    layer: OwnManifest["layers"][number],
    id: Digest,
    name: Reference,
    { progress }: PushOptions,
    signal: AbortSignal,
  ): Promise<void> {
    const short = shortId(layer.diffId);
    if (await repository.hasBlob(layer.digest, signal)) {
      progress(layerMessage(short, "Layer already exists"));
      return;
    }
    const from = this.#otherRepository(id, name);
    const how = await repository.putBlob(
      layer,
      () =>
        counted(
          createReadStream(this.#store.layout.blob(layer.digest)),
          layer.size,
          (current) =>
            progress(layerMessage(short, "Pushing", current, layer.size)),
        ),
      from,
      signal,
    );
    progress(
      layerMessage(
        short,
        how === "mounted" ? `Mounted from ${from ?? ""}` : "Pushed",
      ),
    );
  }

  /** Another repository of the same registry that may have the image's blobs. */
  #otherRepository(id: Digest, name: Reference): string | undefined {
    return this.#store.catalog
      .referencesOf(id)
      .find(
        (other) =>
          other.digest !== undefined &&
          other.domain === name.domain &&
          other.path !== name.path,
      )?.path;
  }
}

/** The tag a push is of. @throws {NotFound} in Docker's words */
export function pushed(
  store: ImageStore,
  reference: Reference,
): { name: Reference; id: Digest } {
  const id = store.catalog.resolve(reference);
  if (id === undefined) {
    throw new NotFound(
      `An image does not exist locally with the tag: ${reference.familiarName}`,
    );
  }
  return { name: reference, id };
}

/** Layers, each once. */
function uploads(manifest: OwnManifest): OwnManifest["layers"] {
  return manifest.layers.filter(
    ({ digest }, index) =>
      manifest.layers.findIndex((other) => other.digest === digest) === index,
  );
}

function counted(
  source: Readable,
  total: number,
  report: (current: number) => void,
): Readable {
  let current = 0;
  let last = 0;
  const counter = new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      current += chunk.length;
      const now = performance.now();
      if (now - last >= INTERVAL_MS || current === total) {
        last = now;
        report(current);
      }
      callback(null, chunk);
    },
  });
  // Whichever breaks ends the other; the upload tells of it.
  return pipeline(source, counter, () => undefined);
}
