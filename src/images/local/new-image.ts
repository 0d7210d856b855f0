/** Makes images here: of a container's changes, a build's steps, an imported root. */
import type { Readable } from "node:stream";
import { InvalidParameter } from "../../errors.js";
import { faultPoint } from "../../fault.js";
import { type Digest, digestOf } from "../digest.js";
import type { ImageConfig } from "../index.js";
import type { ConfigFile } from "../manifest.js";
import { HOST_PLATFORM, type Platform } from "../platform.js";
import { parseReference, type Reference } from "../reference.js";
import type { ImageStore } from "../store/image-store.js";
import type { LayerImporter } from "./layer-import.js";

export interface NewImage {
  /** What it stands on; nothing when undefined. */
  parent: Digest | undefined;
  /** The uppermost layer's archive; no new layer when undefined. Not trusted. */
  layer: Readable | undefined;
  config: ImageConfig;
  author: string;
  comment: string;
  /** What made it, for `docker history`. */
  createdBy: string;
  /** Of an image without parent; the host's own when undefined. */
  platform?: Platform;
  /** Names it. */
  name: Reference | undefined;
  /** By which a build finds it again. */
  buildKey?: string;
  signal: AbortSignal;
}

/** Docker's limit. */
const MAX_LAYERS = 127;

/** @throws {SystemError} the layer cannot be taken; nothing changed */
export async function makeImage(
  store: ImageStore,
  layers: LayerImporter,
  wanted: NewImage,
): Promise<Digest> {
  const { parent, layer, name, signal } = wanted;
  const base = parent === undefined ? undefined : await store.config(parent);
  if (layer && (base?.rootfs.diff_ids.length ?? 0) >= MAX_LAYERS) {
    layer.destroy();
    throw new InvalidParameter("max depth exceeded");
  }
  const added = layer && (await layers.add(layer, signal));
  faultPoint("commit.layer-stored");
  const bytes = Buffer.from(
    JSON.stringify(configFile(wanted, base, added?.diffId)),
  );
  const id = digestOf(bytes);
  const unpin = store.pin([id]);
  try {
    await store.putBlob(id, bytes);
    faultPoint("commit.config-stored");
    const { diff_ids: diffIds } = (await store.config(id)).rootfs;
    await store.catalog.update((draft) => {
      draft.put({
        version: 1,
        id,
        manifests: [],
        diffIds,
        ...(parent === undefined ? {} : { parent }),
        ...(wanted.buildKey === undefined ? {} : { buildKey: wanted.buildKey }),
        ...(name ? { lastTagTime: new Date().toISOString() } : {}),
      });
      if (name) draft.name(name, id);
      else if (!draft.isNamed(id)) draft.unnamed.add(id);
    });
    faultPoint("commit.named");
    return id;
  } finally {
    unpin();
    added?.release();
  }
}

function configFile(
  wanted: NewImage,
  base: ConfigFile | undefined,
  diffId: Digest | undefined,
): object {
  const created = new Date().toISOString();
  const platform = wanted.platform ?? HOST_PLATFORM;
  const variant = base ? base.variant : platform.variant;
  return {
    architecture: base?.architecture ?? platform.architecture,
    ...(variant ? { variant } : {}),
    os: base?.os ?? platform.os,
    created,
    ...(wanted.author ? { author: wanted.author } : {}),
    ...(wanted.comment ? { comment: wanted.comment } : {}),
    config: wanted.config,
    rootfs: {
      type: "layers",
      diff_ids: [...(base?.rootfs.diff_ids ?? []), ...(diffId ? [diffId] : [])],
    },
    history: [
      ...(base?.history ?? []),
      {
        created,
        ...(wanted.author ? { author: wanted.author } : {}),
        ...(wanted.createdBy ? { created_by: wanted.createdBy } : {}),
        ...(wanted.comment ? { comment: wanted.comment } : {}),
        ...(diffId ? {} : { empty_layer: true }),
      },
    ],
  };
}

/**
 * The name `repo` and `tag` of a request stand for; none when `repo` is empty.
 * @throws {InvalidParameter} they are no name
 */
export function nameOf(repo: string, tag: string): Reference | undefined {
  if (repo === "") return undefined;
  const reference = parseReference(repo);
  if (reference.digest !== undefined) {
    throw new InvalidParameter(
      "refusing to create a tag with a digest reference",
    );
  }
  return tag === "" ? reference.withDefaultTag() : reference.withTag(tag);
}
