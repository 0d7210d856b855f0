/**
 * `docker load`: Docker archives (manifest.json) and OCI image layouts (index.json), in a tar of any
 * compression. Entries may come in any order, so that all are put aside first.
 */
import { createWriteStream } from "node:fs";
import { mkdir, readFile, rm, stat } from "node:fs/promises";
import path from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { extract } from "tar-stream";
import { z } from "zod";
import { decompressUnknown } from "../../archive/decompress.js";
import { HullError, InvalidParameter } from "../../errors.js";
import { type Digest, digestOf, hexOf, isDigest } from "../digest.js";
import { choose, MAX_CONFIG, parseConfig, parseManifest } from "../manifest.js";
import { HOST_PLATFORM, type Platform } from "../platform.js";
import type { ProgressSink } from "../progress.js";
import { parseReference, type Reference } from "../reference.js";
import type { ImageStore } from "../store/image-store.js";
import type { LayerImporter } from "./layer-import.js";

const MAX_ENTRIES = 10_000;
const MAX_BYTES = 256 * 1024 ** 3;
const MAX_DOCUMENT = 4 * 1024 * 1024;
const MAX_LINKS = 16;
const MAX_INDEX_DEPTH = 4;

export interface Loaded {
  id: Digest;
  name: Reference | undefined;
}

/** An image found in an archive. */
interface Found {
  config: string;
  layers: string[];
  names: Reference[];
  manifest?: { digest: Digest; bytes: Buffer };
}

const DockerManifest = z.array(
  z.object({
    Config: z.string(),
    RepoTags: z.array(z.string()).nullish(),
    Layers: z
      .array(z.string())
      .nullish()
      .transform((layers) => layers ?? []),
  }),
);

const IndexNames = z.object({
  manifests: z.array(
    z.object({
      digest: z.string(),
      annotations: z.record(z.string(), z.string()).nullish(),
    }),
  ),
});

/**
 * @throws {InvalidParameter} the archive is damaged, or holds no images
 */
export async function loadImages(
  store: ImageStore,
  layers: LayerImporter,
  archive: Readable,
  options: {
    platform: Platform | undefined;
    progress: ProgressSink;
    signal: AbortSignal;
  },
): Promise<Loaded[]> {
  const folder = store.layout.temporaryFile();
  await mkdir(folder, { mode: 0o700 });
  try {
    const files = await spool(archive, folder, options.signal);
    const loaded: Loaded[] = [];
    for (const found of await findImages(files, options.platform)) {
      loaded.push(...(await take(store, layers, files, found, options.signal)));
    }
    return loaded;
  } catch (error) {
    options.signal.throwIfAborted();
    throw error instanceof HullError
      ? error
      : new InvalidParameter(tarProblem(error as Error));
  } finally {
    await rm(folder, { recursive: true, force: true });
    await store.collect();
  }
}

/** What is wrong with an archive that cannot be read, in the Engine's words. */
function tarProblem({ message }: Error): string {
  if (message.startsWith("Invalid tar header")) {
    return "archive/tar: invalid tar header";
  }
  return message === "Unexpected end of data" ? "unexpected EOF" : message;
}

/** The files of an archive by name. Names in it are keys, never paths of this host. */
class Files {
  readonly #files = new Map<string, string>();
  readonly #links = new Map<string, string>();

  add(name: string, file: string): void {
    this.#files.set(clean(name), file);
  }

  link(name: string, target: string): void {
    this.#links.set(clean(name), target);
  }

  has(name: string): boolean {
    return this.#files.has(clean(name));
  }

  /** @throws {InvalidParameter} it is not there */
  path(name: string): string {
    let at = clean(name);
    for (let links = 0; links < MAX_LINKS; links++) {
      const file = this.#files.get(at);
      if (file !== undefined) return file;
      const target = this.#links.get(at);
      if (target === undefined) break;
      at = clean(path.posix.join(path.posix.dirname(at), target));
    }
    throw new InvalidParameter(
      `invalid archive: ${JSON.stringify(name)} does not exist`,
    );
  }

  async read(name: string, limit: number): Promise<Buffer> {
    const file = this.path(name);
    if ((await stat(file)).size > limit) {
      throw new InvalidParameter(
        `invalid archive: ${JSON.stringify(name)} is longer than ${limit} bytes`,
      );
    }
    return readFile(file);
  }

  /** A blob of an OCI layout, verified. */
  async blob(digest: string, limit: number): Promise<Buffer> {
    const bytes = await this.read(blobName(digest), limit);
    if (digestOf(bytes) !== digest) {
      throw new InvalidParameter(
        `invalid archive: blob ${digest} is not what its digest says`,
      );
    }
    return bytes;
  }
}

function clean(name: string): string {
  return path.posix.normalize(`/${name}`).replace(/\/$/, "");
}

function blobName(digest: string): string {
  if (!isDigest(digest)) {
    throw new InvalidParameter(`invalid archive: unsupported digest ${digest}`);
  }
  return `blobs/sha256/${hexOf(digest)}`;
}

async function spool(
  archive: Readable,
  folder: string,
  signal: AbortSignal,
): Promise<Files> {
  const files = new Files();
  const { output, done } = await decompressUnknown(archive, signal);
  const entries = extract();
  const fed = pipeline(output, entries, { signal });
  fed.catch(() => undefined);
  let count = 0;
  let bytes = 0;
  try {
    for await (const entry of entries) {
      const { header } = entry;
      bytes += header.size ?? 0;
      if (++count > MAX_ENTRIES || bytes > MAX_BYTES) {
        throw new InvalidParameter("invalid archive: too much is in it");
      }
      if (header.type === "file" || header.type === "contiguous-file") {
        const file = path.join(folder, String(count));
        await pipeline(entry, createWriteStream(file, { mode: 0o600 }), {
          signal,
        });
        files.add(header.name, file);
      } else {
        if (header.type === "symlink")
          files.link(header.name, header.linkname ?? "");
        if (header.type === "link")
          files.link(header.name, `/${header.linkname ?? ""}`);
        entry.resume();
      }
    }
    await fed;
    await done;
  } catch (error) {
    await done.catch((reason: unknown) => {
      throw reason;
    });
    throw error;
  }
  return files;
}

async function findImages(
  files: Files,
  platform: Platform | undefined,
): Promise<Found[]> {
  if (files.has("manifest.json")) return dockerImages(files);
  if (files.has("index.json") && files.has("oci-layout")) {
    return ociImages(files, platform ?? HOST_PLATFORM);
  }
  throw new InvalidParameter(
    "invalid archive: does not contain a manifest.json or an index.json",
  );
}

async function dockerImages(files: Files): Promise<Found[]> {
  const entries = parse(
    DockerManifest,
    await files.read("manifest.json", MAX_DOCUMENT),
    "manifest.json",
  );
  return entries.map(({ Config, RepoTags, Layers }) => ({
    config: Config,
    layers: Layers,
    names: (RepoTags ?? []).map((tag) => parseReference(tag).withDefaultTag()),
  }));
}

async function ociImages(files: Files, platform: Platform): Promise<Found[]> {
  const top = await files.read("index.json", MAX_DOCUMENT);
  const { manifests } = parse(IndexNames, top, "index.json");
  const found: Found[] = [];
  for (const { digest, annotations } of manifests) {
    let bytes = await files.blob(digest, MAX_DOCUMENT);
    let document = parseManifest(bytes, "");
    let at = digest;
    for (let depth = 0; document.kind === "index"; depth++) {
      if (depth === MAX_INDEX_DEPTH) {
        throw new InvalidParameter("invalid archive: indexes are nested");
      }
      at = choose(document.value, platform).digest;
      bytes = await files.blob(at, MAX_DOCUMENT);
      document = parseManifest(bytes, "");
    }
    found.push({
      config: blobName(document.value.config.digest),
      layers: document.value.layers.map((layer) => blobName(layer.digest)),
      names: namesOf(annotations ?? {}),
      manifest: { digest: at as Digest, bytes },
    });
  }
  return found;
}

/** containerd's annotation has the whole name; the specification's often has a tag only. */
function namesOf(annotations: Record<string, string>): Reference[] {
  const text =
    annotations["io.containerd.image.name"] ??
    annotations["org.opencontainers.image.ref.name"] ??
    "";
  if (!text.includes(":")) return [];
  try {
    return [parseReference(text).withDefaultTag()];
  } catch {
    return [];
  }
}

async function take(
  store: ImageStore,
  layers: LayerImporter,
  files: Files,
  found: Found,
  signal: AbortSignal,
): Promise<Loaded[]> {
  const configBytes = await files.read(found.config, MAX_CONFIG);
  const config = parseConfig(configBytes);
  const id = digestOf(configBytes);
  const diffIds = config.rootfs.diff_ids;
  if (diffIds.length !== found.layers.length) {
    throw new InvalidParameter(
      `invalid manifest, layers length mismatch: expected ${diffIds.length}, got ${found.layers.length}`,
    );
  }
  if (config.os !== "linux") {
    throw new InvalidParameter(
      `cannot load ${config.os} image on linux: operating system is not supported`,
    );
  }
  const { manifest } = found;
  const releases = [store.pin([id, ...(manifest ? [manifest.digest] : [])])];
  try {
    for (const [index, diffId] of diffIds.entries()) {
      const file = files.path(found.layers[index] as string);
      releases.push((await layers.addFile(file, diffId, signal)).release);
    }
    await store.putBlob(id, configBytes);
    if (manifest) await store.putBlob(manifest.digest, manifest.bytes);
    await store.catalog.update((draft) => {
      draft.put({
        version: 1,
        id,
        manifests: manifest ? [manifest.digest] : [],
        diffIds,
      });
      for (const name of found.names) draft.name(name, id);
      if (!draft.isNamed(id)) draft.unnamed.add(id);
    });
  } finally {
    for (const release of releases) release();
  }
  return found.names.length === 0
    ? [{ id, name: undefined }]
    : found.names.map((name) => ({ id, name }));
}

function parse<Schema extends z.ZodType>(
  schema: Schema,
  bytes: Buffer,
  what: string,
): z.output<Schema> {
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw new InvalidParameter(
      `invalid archive: ${what}: ${(error as Error).message}`,
    );
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new InvalidParameter(
    `invalid archive: ${what}: ${issue?.path.map(String).join(".") ?? ""}: ${issue?.message ?? ""}`,
  );
}
