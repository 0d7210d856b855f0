/**
 * `docker save`: an OCI image layout (image-spec image-layout.md) that is a Docker archive too
 * (manifest.json, repositories), as the Engine writes it. Layers are the bytes they came as.
 */
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Pack, pack } from "tar-stream";
import { type Digest, hexOf } from "../digest.js";
import type { Reference } from "../reference.js";
import type { ImageStore } from "../store/image-store.js";
import { type OwnManifest, ownManifest } from "./own-manifest.js";

/** An image and the names it is saved by. */
export interface Saved {
  id: Digest;
  references: Reference[];
}

/** The archive; errors break it off. */
export function saveImages(store: ImageStore, images: Saved[]): Readable {
  const archive = pack();
  write(store, images, archive).then(
    () => archive.finalize(),
    (error: Error) => archive.destroy(error),
  );
  return Readable.from(archive);
}

async function write(
  store: ImageStore,
  images: Saved[],
  archive: Pack,
): Promise<void> {
  const entry = new Entries(archive);
  const written = new Set<Digest>();
  const blob = async (digest: Digest, bytes: Buffer | string, size: number) => {
    if (written.has(digest)) return;
    written.add(digest);
    const name = `blobs/sha256/${hexOf(digest)}`;
    if (typeof bytes === "string") await entry.file(name, bytes, size);
    else await entry.bytes(name, bytes);
  };
  const manifests: object[] = [];
  const docker: object[] = [];
  const repositories: Record<string, Record<string, string>> = {};
  await entry.folder("blobs/");
  await entry.folder("blobs/sha256/");
  for (const { id, references } of images) {
    const own: OwnManifest = await ownManifest(store, id, "oci");
    for (const layer of own.layers) {
      await blob(layer.digest, store.layout.blob(layer.digest), layer.size);
    }
    await blob(id, await readFile(store.layout.blob(id)), 0);
    await blob(own.digest, own.bytes, own.bytes.length);
    const descriptor = {
      mediaType: own.mediaType,
      digest: own.digest,
      size: own.bytes.length,
    };
    if (references.length === 0) manifests.push(descriptor);
    for (const reference of references) {
      manifests.push({
        ...descriptor,
        annotations: {
          "io.containerd.image.name": reference.toString(),
          "org.opencontainers.image.ref.name": reference.tag ?? "",
        },
      });
      (repositories[reference.familiarName] ??= {})[reference.tag ?? ""] =
        hexOf(own.layers.at(-1)?.digest ?? id);
    }
    docker.push({
      Config: `blobs/sha256/${hexOf(id)}`,
      RepoTags: references.length
        ? references.map(({ familiar }) => familiar)
        : null,
      Layers: own.layers.map(({ digest }) => `blobs/sha256/${hexOf(digest)}`),
    });
  }
  await entry.json("index.json", {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests,
  });
  await entry.json("manifest.json", docker);
  await entry.json("oci-layout", { imageLayoutVersion: "1.0.0" });
  if (Object.keys(repositories).length > 0) {
    await entry.json("repositories", repositories);
  }
}

/** Writes entries one after the other, each when its reader has taken the one before. */
class Entries {
  readonly #archive: Pack;
  /** The epoch: the same images make the same archive. */
  readonly #time = new Date(0);

  constructor(archive: Pack) {
    this.#archive = archive;
  }

  folder(name: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#archive.entry(
        { name, type: "directory", mode: 0o755, mtime: this.#time },
        (error) => (error ? reject(error) : resolve()),
      );
    });
  }

  bytes(name: string, content: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#archive.entry(
        { name, mode: 0o644, mtime: this.#time },
        content,
        (error) => (error ? reject(error) : resolve()),
      );
    });
  }

  json(name: string, content: unknown): Promise<void> {
    return this.bytes(name, Buffer.from(JSON.stringify(content)));
  }

  async file(name: string, path: string, size: number): Promise<void> {
    const entry = this.#archive.entry({
      name,
      size,
      mode: 0o644,
      mtime: this.#time,
    });
    await pipeline(createReadStream(path), entry);
  }
}
