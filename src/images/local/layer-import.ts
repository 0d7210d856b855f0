/** Takes layers that come from here rather than from a registry: of containers, builds and archives. */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { open } from "node:fs/promises";
import { Transform } from "node:stream";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import {
  type Compression,
  decompress,
  decompressUnknown,
  detectCompression,
  MAGIC_BYTES,
} from "../../archive/decompress.js";
import { InvalidParameter } from "../../errors.js";
import { faultPoint } from "../../fault.js";
import type { Digest } from "../digest.js";
import type { Erofs } from "../layers/erofs.js";
import type { LayerLimits } from "../layers/layer-filter.js";
import { unpackLayer } from "../layers/unpack.js";
import type { Descriptor } from "../manifest.js";
import { remove } from "../store/files.js";
import type { ImageStore } from "../store/image-store.js";

/** Fast rather than small: a commit waits for it. */
const LEVEL = 1;

/** Media types of layers by what they really are (image-spec layer.md). */
const MEDIA_TYPES: Partial<Record<Compression, string>> = {
  none: "application/vnd.oci.image.layer.v1.tar",
  gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
  zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
};

export interface ImportedLayer {
  diffId: Digest;
  /** Lets it go; to be called when it is part of an image, or will not be. */
  release: () => void;
}

export class LayerImporter {
  readonly #store: ImageStore;
  readonly #erofs: () => Promise<Erofs>;
  readonly #limits: LayerLimits;

  constructor(
    store: ImageStore,
    erofs: () => Promise<Erofs>,
    limits: LayerLimits,
  ) {
    this.#store = store;
    this.#erofs = erofs;
    this.#limits = limits;
  }

  /**
   * Adds a layer from its archive in any compression, and keeps it compressed with gzip.
   * @throws {SystemError} the archive is damaged or hostile
   */
  async add(archive: Readable, signal: AbortSignal): Promise<ImportedLayer> {
    const file = this.#store.layout.temporaryFile();
    try {
      const diffId = new Digester();
      const digest = new Digester();
      const { output, done } = await decompressUnknown(archive, signal);
      await pipeline(
        output,
        diffId,
        createGzip({ level: LEVEL }),
        digest,
        createWriteStream(file, { mode: 0o600, flush: true }),
        { signal },
      );
      await done;
      faultPoint("commit.layer-packed");
      return await this.#take(
        file,
        diffId.digest(),
        {
          digest: digest.digest(),
          size: digest.size,
          mediaType: MEDIA_TYPES.gzip ?? "",
        },
        signal,
      );
    } finally {
      await remove(file);
    }
  }

  /**
   * Adds a layer from a file, which is kept as it is and stays.
   * @throws {InvalidParameter} it is not what its digest says
   */
  async addFile(
    file: string,
    wanted: Digest,
    signal: AbortSignal,
  ): Promise<ImportedLayer> {
    const { compression, size } = await this.#look(file);
    const digest = new Digester();
    const diffId = new Digester();
    const plain = decompress(
      createReadStream(file).pipe(digest),
      compression,
      signal,
    );
    await Promise.all([
      pipeline(plain.output, diffId.resume(), { signal }),
      plain.done,
    ]);
    if (diffId.digest() !== wanted) {
      throw new InvalidParameter(
        `invalid diffID for layer: expected ${JSON.stringify(wanted)}, got ${JSON.stringify(diffId.digest())}`,
      );
    }
    const mediaType = MEDIA_TYPES[compression];
    if (mediaType === undefined) {
      // A form no registry takes is kept in another.
      return this.add(createReadStream(file), signal);
    }
    return this.#take(
      file,
      wanted,
      { digest: digest.digest(), size, mediaType },
      signal,
    );
  }

  async #look(
    file: string,
  ): Promise<{ compression: Compression; size: number }> {
    const handle = await open(file, "r");
    try {
      const head = Buffer.alloc(MAGIC_BYTES);
      const { bytesRead } = await handle.read(head, 0, head.length, 0);
      const { size } = await handle.stat();
      return {
        compression: detectCompression(head.subarray(0, bytesRead)),
        size,
      };
    } finally {
      await handle.close();
    }
  }

  async #take(
    file: string,
    diffId: Digest,
    blob: Descriptor,
    signal: AbortSignal,
  ): Promise<ImportedLayer> {
    const store = this.#store;
    const release = store.pin([diffId, blob.digest]);
    const image = store.layout.temporaryFile();
    try {
      await store.settled();
      if (store.layers.get(diffId) === undefined) {
        const unpacked = await unpackLayer(await this.#erofs(), {
          blob: file,
          diffId,
          output: image,
          temporary: store.layout.temporary,
          limits: this.#limits,
          signal,
          onProgress: () => undefined,
        });
        await store.linkBlob(blob.digest, file);
        await store.layers.add(diffId, image, unpacked, blob);
      }
      return { diffId, release };
    } catch (error) {
      release();
      throw error;
    } finally {
      await remove(image);
    }
  }
}

/** Passes bytes on, counts and digests them. */
export class Digester extends Transform {
  readonly #hash = createHash("sha256");
  size = 0;

  override _transform(
    chunk: Buffer,
    _encoding: BufferEncoding,
    callback: (error: null, chunk: Buffer) => void,
  ): void {
    this.#hash.update(chunk);
    this.size += chunk.length;
    callback(null, chunk);
  }

  /** To be asked once, at the end. */
  digest(): Digest {
    return (this.#digest ??= `sha256:${this.#hash.digest("hex")}`);
  }
  #digest: Digest | undefined;
}
