/** Writes images as OCI layouts (image-spec image-layout.md), for skopeo to push. */
import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import tar from "tar-stream";

export interface ImageFile {
  path: string;
  content: Buffer | { symlink: string };
  mode?: number;
}

export interface WrittenImage {
  /** The layout's folder. */
  directory: string;
  /** Bytes that are pulled: layers, config and manifest. */
  compressedBytes: number;
  /** Bytes of the layers' tar streams. */
  unpackedBytes: number;
}

/** @param layers each one's files; folders above them are made */
export async function writeImage(
  directory: string,
  layers: readonly ImageFile[][],
  config: { Cmd: string[]; Env: string[] },
): Promise<WrittenImage> {
  await mkdir(join(directory, "blobs/sha256"), { recursive: true });
  let compressedBytes = 0;
  let unpackedBytes = 0;
  const put = async (mediaType: string, content: Buffer) => {
    const hex = createHash("sha256").update(content).digest("hex");
    await writeFile(join(directory, "blobs/sha256", hex), content);
    compressedBytes += content.length;
    return { mediaType, digest: `sha256:${hex}`, size: content.length };
  };
  const diffIds: string[] = [];
  const descriptors = [];
  for (const files of layers) {
    const content = await packLayer(files);
    unpackedBytes += content.length;
    diffIds.push(
      `sha256:${createHash("sha256").update(content).digest("hex")}`,
    );
    descriptors.push(
      await put(
        "application/vnd.oci.image.layer.v1.tar+gzip",
        gzipSync(content, { level: 6 }),
      ),
    );
  }
  const configDescriptor = await put(
    "application/vnd.oci.image.config.v1+json",
    json({
      architecture: process.arch === "arm64" ? "arm64" : "amd64",
      os: "linux",
      created: "2025-01-01T00:00:00Z",
      config,
      rootfs: { type: "layers", diff_ids: diffIds },
      history: diffIds.map(() => ({ created_by: "bench" })),
    }),
  );
  const manifest = await put(
    "application/vnd.oci.image.manifest.v1+json",
    json({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: configDescriptor,
      layers: descriptors,
    }),
  );
  await writeFile(
    join(directory, "index.json"),
    json({ schemaVersion: 2, manifests: [manifest] }),
  );
  await writeFile(
    join(directory, "oci-layout"),
    json({ imageLayoutVersion: "1.0.0" }),
  );
  return { directory, compressedBytes, unpackedBytes };
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

async function packLayer(files: readonly ImageFile[]): Promise<Buffer> {
  const pack = tar.pack();
  const chunks: Buffer[] = [];
  const done = (async () => {
    for await (const chunk of pack) chunks.push(chunk as Buffer);
  })();
  const mtime = new Date("2025-01-01T00:00:00Z");
  const folders = new Set<string>();
  for (const { path, content, mode } of files) {
    const parts = path.split("/").slice(0, -1);
    for (let depth = 1; depth <= parts.length; depth++) {
      const name = parts.slice(0, depth).join("/");
      if (!folders.has(name)) {
        folders.add(name);
        pack.entry({ name, type: "directory", mode: 0o755, mtime });
      }
    }
    if (Buffer.isBuffer(content)) {
      pack.entry({ name: path, mode: mode ?? 0o644, mtime }, content);
    } else {
      pack.entry({
        name: path,
        type: "symlink",
        linkname: content.symlink,
        mtime,
      });
    }
  }
  pack.finalize();
  await done;
  return Buffer.concat(chunks);
}
