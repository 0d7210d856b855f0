/**
 * Manifests, indexes and image configs as registries send them: OCI image-spec and Docker's
 * "schema 2", checked before anything is believed.
 */
import { z } from "zod";
import { NotFound, SystemError } from "../errors.js";
import { type Digest, isDigest } from "./digest.js";
import {
  formatPlatform,
  normalised,
  type Platform,
  suitability,
} from "./platform.js";

const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
const SCHEMA_1 = /^application\/vnd\.docker\.distribution\.manifest\.v1/;
const CONFIG_TYPES = [
  "application/vnd.oci.image.config.v1+json",
  "application/vnd.docker.container.image.v1+json",
  "application/octet-stream",
];

/** The most layers an image may have, as with Docker. */
const MAX_LAYERS = 127;
/** The most manifests an index may list. */
const MAX_MANIFESTS = 1000;
/** The longest image config. */
export const MAX_CONFIG = 8 * 1024 * 1024;

const DigestSchema = z.custom<Digest>(
  (value) => typeof value === "string" && isDigest(value),
  { error: "unsupported digest" },
);

const Descriptor = z.object({
  mediaType: z.string().default(""),
  digest: DigestSchema,
  size: z.int().min(0),
});
/** Where a blob is and how long it is. */
export type Descriptor = z.output<typeof Descriptor>;

const Manifest = z.object({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  config: Descriptor,
  layers: z.array(Descriptor).max(MAX_LAYERS, "max depth exceeded"),
});
export type Manifest = z.output<typeof Manifest>;

const Index = z.object({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  manifests: z
    .array(
      Descriptor.extend({
        platform: z
          .object({
            os: z.string(),
            architecture: z.string(),
            variant: z.string().default(""),
          })
          .optional(),
      }),
    )
    .max(MAX_MANIFESTS),
});
export type Index = z.output<typeof Index>;

const strings = z.array(z.string()).nullish();
const record = z.record(z.string(), z.unknown()).nullish();

/** The part of the config that containers are made from, with the case Docker writes. */
const ContainerConfig = z.looseObject({
  User: z.string().nullish(),
  ExposedPorts: record,
  Env: strings,
  Entrypoint: strings,
  Cmd: strings,
  Volumes: record,
  WorkingDir: z.string().nullish(),
  Labels: z.record(z.string(), z.string()).nullish(),
  StopSignal: z.string().nullish(),
  Shell: strings,
  Healthcheck: z
    .object({
      Test: strings,
      Interval: z.number().nullish(),
      Timeout: z.number().nullish(),
      StartPeriod: z.number().nullish(),
      StartInterval: z.number().nullish(),
      Retries: z.number().nullish(),
    })
    .nullish(),
  OnBuild: strings,
  ArgsEscaped: z.boolean().nullish(),
});

const ConfigFile = z.looseObject({
  architecture: z.string().default(""),
  os: z.string().default("linux"),
  variant: z.string().default(""),
  "os.version": z.string().nullish(),
  created: z.string().nullish(),
  author: z.string().nullish(),
  comment: z.string().nullish(),
  docker_version: z.string().nullish(),
  config: ContainerConfig.nullish(),
  rootfs: z.object({
    type: z.literal("layers"),
    diff_ids: z
      .array(DigestSchema)
      .nullish()
      .transform((ids) => ids ?? []),
  }),
  history: z
    .array(
      z.object({
        created: z.string().nullish(),
        created_by: z.string().nullish(),
        author: z.string().nullish(),
        comment: z.string().nullish(),
        empty_layer: z.boolean().nullish(),
      }),
    )
    .nullish()
    .transform((history) => history ?? []),
});
/** An image config (image-spec config.md). */
export type ConfigFile = z.output<typeof ConfigFile>;

export type ManifestDocument =
  { kind: "manifest"; value: Manifest } | { kind: "index"; value: Index };

/**
 * Reads a manifest or an index.
 * @param mediaType as the registry declared it; the document's own word counts more
 * @throws {SystemError} neither
 */
export function parseManifest(
  bytes: Buffer,
  mediaType: string,
): ManifestDocument {
  const json = parseJson(bytes, "manifest");
  const own = "mediaType" in json ? json["mediaType"] : undefined;
  const type = typeof own === "string" && own !== "" ? own : mediaType;
  const isIndex = "manifests" in json;
  const isManifest = "layers" in json || "config" in json;
  if (SCHEMA_1.test(type) || json["schemaVersion"] === 1) {
    throw new SystemError(
      "Docker Image manifest version 2, schema 1 is not supported: the image is to be pushed again in the OCI format or Docker Image manifest v2, schema 2",
    );
  }
  // A document that is both could be shown as one thing and run as another.
  if (
    isIndex === isManifest ||
    (isIndex && (type === OCI_MANIFEST || type === DOCKER_MANIFEST)) ||
    (isManifest && (type === OCI_INDEX || type === DOCKER_LIST))
  ) {
    throw new SystemError(
      `unsupported manifest: media type ${JSON.stringify(type)}`,
    );
  }
  if (isIndex) {
    return { kind: "index", value: check(Index, json, "manifest list") };
  }
  const value = check(Manifest, json, "manifest");
  if (!CONFIG_TYPES.includes(value.config.mediaType)) {
    throw new SystemError(
      `invalid config media type ${JSON.stringify(value.config.mediaType)}: not a container image`,
    );
  }
  return { kind: "manifest", value };
}

/**
 * Reads an image config.
 * @throws {SystemError} malformed
 */
export function parseConfig(bytes: Buffer): ConfigFile {
  return check(ConfigFile, parseJson(bytes, "image config"), "image config");
}

/**
 * Chooses from an index what suits a platform best; the first of equals.
 * @throws {NotFound} "no matching manifest for …", as Docker says it
 */
export function choose(index: Index, wanted: Platform): Descriptor {
  let best: { descriptor: Descriptor; score: number } | undefined;
  for (const { platform, ...descriptor } of index.manifests) {
    if (platform === undefined) continue;
    const score = suitability(
      wanted,
      normalised(platform.os, platform.architecture, platform.variant),
    );
    if (score === undefined) continue;
    if (best === undefined || score < best.score) best = { descriptor, score };
  }
  if (best === undefined) {
    throw new NotFound(
      `no matching manifest for ${formatPlatform(wanted)} in the manifest list entries`,
    );
  }
  return best.descriptor;
}

function parseJson(bytes: Buffer, what: string): Record<string, unknown> {
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw new SystemError(`malformed ${what}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new SystemError(`malformed ${what}: not an object`);
  }
  return json as Record<string, unknown>;
}

function check<Schema extends z.ZodType>(
  schema: Schema,
  json: unknown,
  what: string,
): z.output<Schema> {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new SystemError(
    `malformed ${what}: ${issue?.path.map(String).join(".") ?? ""}: ${issue?.message ?? ""}`,
  );
}
