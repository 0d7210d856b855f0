/**
 * Makes images in memory, byte by byte as a test wants them: layers from a list of entries, OCI or
 * Docker schema 2 manifests, any compression, indexes. What is made is the same each time.
 */
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { execFileSync } from "node:child_process";
import * as tar from "tar-stream";

/** An entry of a layer. */
export type Entry = Partial<tar.Header> & {
  name: string;
  content?: Buffer | string;
};

/** A blob with the digest and media type by which a manifest names it. */
export interface Blob {
  mediaType: string;
  digest: string;
  bytes: Buffer;
}

/** An image as it is pushed: blobs first, then its manifest. */
export interface BuiltImage {
  manifest: Blob;
  /** Layers and config. */
  blobs: Blob[];
  config: Blob;
  diffIds: string[];
}

/** Several images behind one name. */
export interface BuiltIndex {
  manifest: Blob;
  images: BuiltImage[];
}

export type Compression = "gzip" | "zstd" | "none";

/** The part of the image config a test chooses; keys as in the OCI image config. */
export interface ConfigChoice {
  architecture?: string;
  variant?: string;
  os?: string;
  config?: Record<string, unknown>;
}

const EPOCH = new Date("2024-01-01T00:00:00Z");

/** "sha256:…" of the bytes. */
export function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** A tar stream's bytes from entries, in their order. */
export async function layer(entries: Entry[]): Promise<Buffer> {
  const pack = tar.pack();
  const chunks: Buffer[] = [];
  const collected = (async () => {
    for await (const chunk of pack) chunks.push(chunk as Buffer);
  })();
  for (const { content, ...header } of entries) {
    const full = {
      mtime: EPOCH,
      uid: 0,
      gid: 0,
      mode: header.type === "directory" ? 0o755 : 0o644,
      ...header,
    };
    await new Promise<void>((resolve, reject) => {
      const done = (error?: Error | null) => {
        if (error) reject(error);
        else resolve();
      };
      if (content === undefined) pack.entry(full, done);
      else pack.entry(full, content, done);
    });
  }
  pack.finalize();
  await collected;
  return Buffer.concat(chunks);
}

const MEDIA = {
  oci: {
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
    zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
    none: "application/vnd.oci.image.layer.v1.tar",
  },
  docker: {
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    gzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    zstd: "application/vnd.docker.image.rootfs.diff.tar.zstd",
    none: "application/vnd.docker.image.rootfs.diff.tar",
  },
} as const;

/** A layer that is compressed already, with the digest of what is inside. */
export interface PackedLayer {
  compressed: Buffer;
  diffId: string;
}

/** Makes an image of layers, uncompressed tar streams each (or packed ones, gzip). */
export function image(
  layers: (Buffer | PackedLayer)[],
  choice: ConfigChoice = {},
  format: keyof typeof MEDIA = "oci",
  compression: Compression = "gzip",
): BuiltImage {
  const media = MEDIA[format];
  const packed = layers.map((each) =>
    Buffer.isBuffer(each)
      ? {
          compressed: compress(each, compression),
          diffId: digestOf(each),
          type: media[compression],
        }
      : { ...each, type: media.gzip },
  );
  const diffIds = packed.map((each) => each.diffId);
  const config = blob(
    media.config,
    json({
      architecture: choice.architecture ?? "amd64",
      ...(choice.variant && { variant: choice.variant }),
      os: choice.os ?? "linux",
      created: EPOCH.toISOString(),
      author: "hull tests",
      config: choice.config ?? {},
      rootfs: { type: "layers", diff_ids: diffIds },
      history: [
        ...diffIds.map((_, index) => ({
          created: EPOCH.toISOString(),
          created_by: `COPY layer ${index + 1}`,
        })),
        {
          created: EPOCH.toISOString(),
          created_by: 'CMD ["sh"]',
          comment: "buildkit.dockerfile.v0",
          empty_layer: true,
        },
      ],
    }),
  );
  const blobs = packed.map((each) => blob(each.type, each.compressed));
  const manifest = blob(
    media.manifest,
    json({
      schemaVersion: 2,
      mediaType: media.manifest,
      config: descriptor(config),
      layers: blobs.map(descriptor),
    }),
  );
  return { manifest, blobs: [...blobs, config], config, diffIds };
}

/** Makes an index (a manifest list) of images for platforms like "linux/arm64/v8". */
export function index(
  images: { platform: string; image: BuiltImage }[],
  format: keyof typeof MEDIA = "oci",
): BuiltIndex {
  const mediaType =
    format === "oci"
      ? "application/vnd.oci.image.index.v1+json"
      : "application/vnd.docker.distribution.manifest.list.v2+json";
  const manifest = blob(
    mediaType,
    json({
      schemaVersion: 2,
      mediaType,
      manifests: images.map((each) => {
        const [os, architecture, variant] = each.platform.split("/");
        return {
          ...descriptor(each.image.manifest),
          platform: { os, architecture, ...(variant && { variant }) },
        };
      }),
    }),
  );
  return { manifest, images: images.map((each) => each.image) };
}

/** The same bytes under the media type the manifest will carry. */
export function blob(mediaType: string, bytes: Buffer): Blob {
  return { mediaType, digest: digestOf(bytes), bytes };
}

function descriptor(of: Blob) {
  return { mediaType: of.mediaType, digest: of.digest, size: of.bytes.length };
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function compress(bytes: Buffer, compression: Compression): Buffer {
  switch (compression) {
    case "gzip":
      return gzipSync(bytes, { level: 1 });
    case "zstd":
      // node 20's zlib has no zstd.
      return execFileSync("zstd", ["-q", "-c"], {
        input: bytes,
        maxBuffer: 1 << 30,
      });
    case "none":
      return bytes;
  }
}
