import { availableParallelism } from "node:os";
import { faultPoint } from "../../fault.js";
import type { Digest } from "../digest.js";
import type { Erofs } from "../layers/erofs.js";
import type { LayerLimits } from "../layers/layer-filter.js";
import { unpackLayer } from "../layers/unpack.js";
import type { Descriptor } from "../manifest.js";
import type { Repository } from "../registry/repository.js";
import { remove } from "../store/files.js";
import type { ImageStore } from "../store/image-store.js";
import { download, type DownloadOptions } from "./download.js";
import { Semaphore } from "./semaphore.js";
import { SharedWork } from "./shared-work.js";

/** Unpacking is work for the CPU: hashing and sanitising here, decompression and mkfs beside. */
const PARALLEL_UNPACKS = Math.max(2, availableParallelism());

/** Where a layer is on its way. */
export type LayerProgress =
  | { status: "waiting" | "verifying" | "downloaded" | "complete" }
  | { status: "downloading" | "extracting"; current: number; total: number }
  | { status: "retrying"; seconds: number };

/** Brings layers into the store, each once however many clients ask for it. */
export class LayerTransfers {
  readonly #store: ImageStore;
  readonly #erofs: () => Promise<Erofs>;
  readonly #limits: LayerLimits;
  readonly #download: DownloadOptions;
  readonly #downloads: Semaphore;
  readonly #unpacks = new Semaphore(PARALLEL_UNPACKS);
  readonly #shared = new SharedWork<void, LayerProgress>();

  constructor(
    store: ImageStore,
    erofs: () => Promise<Erofs>,
    limits: LayerLimits,
    downloadOptions: DownloadOptions,
  ) {
    this.#store = store;
    this.#erofs = erofs;
    this.#limits = limits;
    this.#download = downloadOptions;
    this.#downloads = new Semaphore(downloadOptions.concurrency);
  }

  /**
   * Downloads and unpacks a layer. The caller has pinned both digests.
   * @throws {RegistryError} {@link SystemError} as `download` and `unpackLayer` do
   */
  fetch(
    repository: Repository,
    blob: Descriptor,
    diffId: Digest,
    watch: (progress: LayerProgress) => void,
    signal: AbortSignal,
  ): Promise<void> {
    return this.#shared.join(
      `${blob.digest} ${diffId}`,
      (shared, report) => this.#fetch(repository, blob, diffId, shared, report),
      watch,
      signal,
    );
  }

  async #fetch(
    repository: Repository,
    blob: Descriptor,
    diffId: Digest,
    signal: AbortSignal,
    report: (progress: LayerProgress) => void,
  ): Promise<void> {
    const store = this.#store;
    const erofs = await this.#erofs();
    // A client that joins and leaves must not let go of what another still fetches.
    const unpin = store.pin([blob.digest, diffId]);
    const { layout } = store;
    const compressed = layout.temporaryFile();
    const image = layout.temporaryFile();
    try {
      if (this.#downloads.busy) report({ status: "waiting" });
      await this.#downloads.run(signal, () =>
        download(
          repository,
          blob,
          compressed,
          this.#download,
          signal,
          throttled(report),
        ),
      );
      faultPoint("pull.layer-downloaded");
      report({ status: "downloaded" });
      const progress = throttled(report);
      const unpacked = await this.#unpacks.run(signal, () =>
        unpackLayer(erofs, {
          blob: compressed,
          diffId,
          output: image,
          temporary: layout.temporary,
          limits: this.#limits,
          signal,
          onProgress: (current) => {
            progress({ status: "extracting", current, total: blob.size });
          },
        }),
      );
      signal.throwIfAborted();
      await store.linkBlob(blob.digest, compressed);
      faultPoint("pull.blob-linked");
      await store.layers.add(diffId, image, unpacked, blob);
      report({ status: "complete" });
    } finally {
      await remove(compressed);
      await remove(image);
      unpin();
    }
  }
}

const INTERVAL_MS = 100;

/** Passes on counts at most every 100 ms, and everything else, and the last count of all. */
function throttled(
  report: (progress: LayerProgress) => void,
): (progress: LayerProgress) => void {
  let last = 0;
  return (progress) => {
    if ("current" in progress && progress.current < progress.total) {
      const now = performance.now();
      if (now - last < INTERVAL_MS) return;
      last = now;
    }
    report(progress);
  };
}
