import { statSync } from "node:fs";
import { rename, stat } from "node:fs/promises";
import type { Logger } from "pino";
import { z } from "zod";
import { NotFound } from "../../errors.js";
import { faultPoint } from "../../fault.js";
import type { Disk } from "../../hypervisor/index.js";
import { readRecord, syncDirectory, writeRecord } from "../../state-file.js";
import { type Digest, digestOf, hexOf, isDigest } from "../digest.js";
import type { Erofs } from "../layers/erofs.js";
import { sealErofs } from "../layers/erofs.js";
import type { UnpackedLayer } from "../layers/unpack.js";
import { list, remove } from "./files.js";
import { exists, type Layout } from "./layout.js";

const DigestSchema = z.custom<Digest>(
  (value) => typeof value === "string" && isDigest(value),
);

const Record = z.object({
  version: z.literal(1),
  diffId: DigestSchema,
  /** The layer as it came, kept for push and save. */
  blob: z.object({
    digest: DigestSchema,
    size: z.number(),
    mediaType: z.string(),
  }),
  bytes: z.number(),
  contentBytes: z.number(),
  opaqueRoot: z.boolean(),
});
export type LayerRecord = z.output<typeof Record>;

/** The unpacked layers, each stored once whatever number of images use it, and the images' merged roots. */
export class LayerStore {
  readonly #records = new Map<Digest, LayerRecord>();
  readonly #merging = new Map<Digest, Promise<void>>();

  constructor(
    readonly layout: Layout,
    readonly log: Logger,
  ) {}

  /** Reads what is there. A damaged record is set aside with a word in the log. */
  async load(): Promise<void> {
    for (const name of await list(this.layout.layers)) {
      if (!name.endsWith(".json")) continue;
      const path = `${this.layout.layers}/${name}`;
      const record = await readRecord(path, Record, this.log);
      if (
        record !== undefined &&
        name === `${hexOf(record.diffId)}.json` &&
        (await exists(this.layout.layer(record.diffId)))
      ) {
        this.#records.set(record.diffId, record);
      }
    }
  }

  get(diffId: Digest): LayerRecord | undefined {
    return this.#records.get(diffId);
  }

  all(): LayerRecord[] {
    return [...this.#records.values()];
  }

  /** Takes over a finished layer. @param file its EROFS image, already on disk for good */
  async add(
    diffId: Digest,
    file: string,
    unpacked: UnpackedLayer,
    blob: LayerRecord["blob"],
  ): Promise<void> {
    await rename(file, this.layout.layer(diffId));
    faultPoint("pull.layer-renamed");
    const record: LayerRecord = { version: 1, diffId, blob, ...unpacked };
    // The record comes last: a layer counts once it has one.
    await writeRecord(this.layout.layerRecord(diffId), record);
    faultPoint("pull.layer-stored");
    this.#records.set(diffId, record);
  }

  async remove(diffId: Digest): Promise<void> {
    this.#records.delete(diffId);
    await remove(this.layout.layerRecord(diffId));
    await remove(this.layout.layer(diffId));
  }

  /**
   * The disk of a stack of layers, lowest first; its merged root is made when it is not there yet.
   * @throws {NotFound} a layer is missing
   */
  async disk(
    diffIds: readonly Digest[],
    erofs: () => Promise<Erofs>,
  ): Promise<Disk> {
    const records = visible(
      diffIds.map((diffId) => {
        const record = this.#records.get(diffId);
        if (record === undefined)
          throw new NotFound(`layer ${diffId} is missing`);
        return record;
      }),
    );
    const merged = this.layout.mergedOf(chainIdOf(diffIds));
    let bytes = sizeOf(merged);
    if (bytes === undefined) {
      await this.#merge(diffIds, records, await erofs());
      bytes = (await stat(merged)).size;
    }
    return {
      readonly: true,
      parts: [
        { path: merged, bytes },
        ...records.map((record) => ({
          path: this.layout.layer(record.diffId),
          bytes: record.bytes,
        })),
      ],
    };
  }

  async #merge(
    diffIds: readonly Digest[],
    records: readonly LayerRecord[],
    erofs: Erofs,
  ): Promise<void> {
    const chainId = chainIdOf(diffIds);
    let merging = this.#merging.get(chainId);
    if (merging === undefined) {
      merging = this.#makeMerged(chainId, records, erofs).finally(() =>
        this.#merging.delete(chainId),
      );
      this.#merging.set(chainId, merging);
    }
    await merging;
  }

  async #makeMerged(
    chainId: Digest,
    records: readonly LayerRecord[],
    erofs: Erofs,
  ): Promise<void> {
    const file = this.layout.temporaryFile();
    try {
      const layers = records.map(({ diffId }) => this.layout.layer(diffId));
      if (layers.length > 0) await erofs.merge(file, layers);
      else await erofs.empty(file);
      await sealErofs(file);
      await rename(file, this.layout.mergedOf(chainId));
      await syncDirectory(this.layout.merged);
    } catch (error) {
      await remove(file);
      throw error;
    }
  }
}

/**
 * Of a file that is there. At once: of one that starts have in use the kernel has it at hand, and each start waits
 * for it.
 */
function sizeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.size;
}

/**
 * The layers of a stack that can be seen: those above the topmost one that hides all below it, and of
 * a layer that occurs more than once the topmost occurrence, which has the last word anyway.
 */
function visible(records: readonly LayerRecord[]): LayerRecord[] {
  const bottom = records.findLastIndex(({ opaqueRoot }) => opaqueRoot);
  const seen = records.slice(Math.max(bottom, 0));
  return seen.filter((record, index) => seen.lastIndexOf(record) === index);
}

/** Identifies a stack of layers (image-spec, "Layer ChainID"). */
export function chainIdOf(diffIds: readonly Digest[]): Digest {
  const [first, ...others] = diffIds;
  if (first === undefined) return digestOf(Buffer.alloc(0));
  return others.reduce<Digest>(
    (chain, diffId) => digestOf(Buffer.from(`${chain} ${diffId}`)),
    first,
  );
}
