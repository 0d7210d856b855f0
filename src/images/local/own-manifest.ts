/** The manifest an image leaves this host with: the one it came with, or one made of what is here. */
import { open, readFile } from "node:fs/promises";
import {
  detectCompression,
  MAGIC_BYTES,
  type Compression,
} from "../../archive/decompress.js";
import { NotFound } from "../../errors.js";
import { type Digest, digestOf } from "../digest.js";
import { type Descriptor, parseManifest } from "../manifest.js";
import type { ImageStore } from "../store/image-store.js";

export interface OwnManifest {
  mediaType: string;
  bytes: Buffer;
  digest: Digest;
  config: Descriptor;
  /** Lowest first; digests as the blobs are kept. */
  layers: (Descriptor & { diffId: Digest })[];
}

const FORMS = {
  oci: {
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layers: {
      none: "application/vnd.oci.image.layer.v1.tar",
      gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
      zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
    } as Partial<Record<Compression, string>>,
  },
  docker: {
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layers: {
      gzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    } as Partial<Record<Compression, string>>,
  },
};

/**
 * @param form what to make when the image came without a manifest of its own: "docker" where it can be
 * @throws {NotFound} a layer is missing
 */
export async function ownManifest(
  store: ImageStore,
  id: Digest,
  form: "oci" | "docker",
): Promise<OwnManifest> {
  const record = store.catalog.get(id);
  if (record === undefined) throw new NotFound(`No such image: ${id}`);
  const layers = record.diffIds.map((diffId) => {
    const layer = store.layers.get(diffId);
    if (layer === undefined) throw new NotFound(`layer ${diffId} is missing`);
    return { ...layer.blob, diffId };
  });
  for (const digest of record.manifests) {
    const bytes = await readFile(store.layout.blob(digest));
    const document = parseManifest(bytes, "");
    if (document.kind !== "manifest" || document.value.config.digest !== id) {
      continue;
    }
    const same =
      document.value.layers.length === layers.length &&
      document.value.layers.every(
        (layer, index) => layer.digest === layers[index]?.digest,
      );
    // A layer may be kept as another image brought it.
    if (!same) continue;
    return {
      mediaType: document.value.mediaType ?? FORMS.oci.manifest,
      bytes,
      digest,
      config: document.value.config,
      layers,
    };
  }
  const compressions = await Promise.all(
    layers.map(({ digest }) => compressionOf(store.layout.blob(digest))),
  );
  const types =
    form === "docker" && compressions.every((one) => one === "gzip")
      ? FORMS.docker
      : FORMS.oci;
  const config = {
    mediaType: types.config,
    digest: id,
    size: (await readFile(store.layout.blob(id))).length,
  };
  const typed = layers.map((layer, index) => ({
    ...layer,
    mediaType: types.layers[compressions[index] ?? "none"] ?? layer.mediaType,
  }));
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: types.manifest,
      config,
      layers: typed.map(({ mediaType, size, digest }) => ({
        mediaType,
        size,
        digest,
      })),
    }),
  );
  return {
    mediaType: types.manifest,
    bytes,
    digest: digestOf(bytes),
    config,
    layers: typed,
  };
}

async function compressionOf(file: string): Promise<Compression> {
  const handle = await open(file, "r");
  try {
    const head = Buffer.alloc(MAGIC_BYTES);
    const { bytesRead } = await handle.read(head, 0, head.length, 0);
    return detectCompression(head.subarray(0, bytesRead));
  } finally {
    await handle.close();
  }
}
