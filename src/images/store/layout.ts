import { mkdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "pino";
import { z } from "zod";
import { SystemError } from "../../errors.js";
import { readRecord, writeRecord } from "../../state-file.js";
import { type Digest, hexOf } from "../digest.js";

/** Version of what is on disk. A daemon refuses a version it does not know. */
const VERSION = 1;
const versionShape = z.object({ version: z.number() });

/**
 * Where things are below the image folder:
 *
 *     version.json          version of this layout
 *     repositories.json     names, tags and digests of images
 *     images/HEX.json       one record an image, by its ID
 *     blobs/sha256/HEX      manifests, configs and compressed layers as they came
 *     layers/HEX.erofs      a layer's file system, by diff ID
 *     layers/HEX.json       its record
 *     merged/HEX.erofs      the file system joining an image's layers, by chain ID
 *     tmp/                  unfinished work; emptied at start
 */
export class Layout {
  constructor(readonly root: string) {}

  /**
   * Makes the folders and clears away what an earlier daemon left unfinished.
   * @throws {SystemError} written by a newer hull
   */
  async prepare(log: Logger): Promise<void> {
    await mkdir(this.root, { recursive: true, mode: 0o700 });
    const path = join(this.root, "version.json");
    const known = await readRecord(path, versionShape, log);
    if (known === undefined) await writeRecord(path, { version: VERSION });
    else if (known.version !== VERSION) {
      throw new SystemError(
        `${this.root} is of version ${known.version}, this hull knows version ${VERSION}`,
      );
    }
    await rm(this.temporary, { recursive: true, force: true });
    for (const folder of [
      this.temporary,
      this.images,
      this.blobs,
      this.layers,
      this.merged,
    ]) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
    }
  }

  get repositories(): string {
    return join(this.root, "repositories.json");
  }
  get images(): string {
    return join(this.root, "images");
  }
  get blobs(): string {
    return join(this.root, "blobs", "sha256");
  }
  get layers(): string {
    return join(this.root, "layers");
  }
  get merged(): string {
    return join(this.root, "merged");
  }
  get temporary(): string {
    return join(this.root, "tmp");
  }

  image(id: Digest): string {
    return join(this.images, `${hexOf(id)}.json`);
  }
  blob(digest: Digest): string {
    return join(this.blobs, hexOf(digest));
  }
  layer(diffId: Digest): string {
    return join(this.layers, `${hexOf(diffId)}.erofs`);
  }
  layerRecord(diffId: Digest): string {
    return join(this.layers, `${hexOf(diffId)}.json`);
  }
  mergedOf(chainId: Digest): string {
    return join(this.merged, `${hexOf(chainId)}.erofs`);
  }

  #unfinished = 0;
  /** A new name in the folder of unfinished work. */
  temporaryFile(): string {
    return join(this.temporary, `${process.pid}-${this.#unfinished++}`);
  }
}

/** Whether there is a file. */
export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
