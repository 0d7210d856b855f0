/** Endpoints by which images are made of containers and archives, and leave as archives or to registries. */
import type { Readable } from "node:stream";
import { z } from "zod";
import { BadAnswer, fetchFile, isUrl } from "../archive/fetch.js";
import { commit } from "../builder/commit.js";
import type { ContainerService } from "../containers/service.js";
import { applyChanges } from "../dockerfile/config.js";
import { InvalidParameter, SystemError } from "../errors.js";
import { nameOf } from "../images/local/new-image.js";
import { parsePlatform } from "../images/platform.js";
import { decodeRegistryAuth } from "../images/registry/credentials.js";
import type { ImageService } from "../images/service.js";
import { readJson } from "./body.js";
import type { ApiContext, ApiRouter } from "./context.js";
import { send } from "./files.js";
import { queryBoolean, queryString, queryStrings } from "./query.js";
import { clientGone, streamProgress } from "./response-stream.js";

/** ContainerConfig of the specification, as far as an image keeps it. */
const strings = z.array(z.string()).nullish();
const commitConfigSchema = z.looseObject({
  User: z.string().nullish(),
  ExposedPorts: z.record(z.string(), z.object({})).nullish(),
  Env: strings,
  Entrypoint: strings,
  Cmd: strings,
  Volumes: z.record(z.string(), z.object({})).nullish(),
  WorkingDir: z.string().nullish(),
  Labels: z.record(z.string(), z.string()).nullish(),
  StopSignal: z.string().nullish(),
  Shell: strings,
  OnBuild: strings,
});
const IMAGE_FIELDS = Object.keys(commitConfigSchema.shape);

export function imageTransferRoutes(
  images: ImageService,
  containers: ContainerService,
) {
  return (router: ApiRouter): void => {
    router.post("/commit", async (ctx) => {
      const container = containers.get(queryString(ctx, "container") ?? "");
      const body = await readJson(ctx, commitConfigSchema);
      const id = await commit(containers, images, container, {
        repo: queryString(ctx, "repo") ?? "",
        tag: queryString(ctx, "tag") ?? "",
        comment: queryString(ctx, "comment") ?? "",
        author: queryString(ctx, "author") ?? "",
        pause: queryBoolean(ctx, "pause", true),
        changes: queryStrings(ctx, "changes"),
        config: Object.fromEntries(
          Object.entries(body).filter(
            ([field, value]) =>
              IMAGE_FIELDS.includes(field) && value != null && value !== "",
          ),
        ),
        signal: clientGone(ctx),
      });
      ctx.status = 201;
      ctx.body = { Id: id };
    });

    router.get("/images/get", (ctx) =>
      save(ctx, images, queryStrings(ctx, "names")),
    );

    router.get("/images/*name/get", (ctx) =>
      save(ctx, images, [imageName(ctx)]),
    );

    router.post("/images/load", async (ctx) => {
      await streamProgress(ctx, (stream) =>
        images.local.load(
          ctx.req,
          platformOf(ctx),
          (line) => void stream.send(line),
          stream.signal,
        ),
      );
    });

    router.post("/images/*name/push", async (ctx) => {
      const credentials = decodeRegistryAuth(ctx.get("X-Registry-Auth"));
      await streamProgress(ctx, (stream) =>
        images.local.push(imageName(ctx), queryString(ctx, "tag") ?? "", {
          credentials,
          progress: (message) => void stream.send(message),
          result: (aux) => void stream.send({ progressDetail: {}, aux }),
          signal: stream.signal,
        }),
      );
    });
  };
}

/**
 * `docker import`: `POST /images/create` with `fromSrc`.
 * @throws {InvalidParameter} a name, change or platform cannot be, or the source is none
 */
export async function importImage(
  ctx: ApiContext,
  images: ImageService,
): Promise<void> {
  const source = queryString(ctx, "fromSrc") ?? "";
  const name = nameOf(
    queryString(ctx, "repo") ?? "",
    queryString(ctx, "tag") ?? "",
  );
  const config = applyChanges({}, queryStrings(ctx, "changes"));
  const platform = queryString(ctx, "platform") ?? "";
  const url = source === "-" ? undefined : archiveUrl(source);
  await streamProgress(ctx, async (stream) => {
    if (url) await stream.send({ status: `Downloading from ${url}` });
    const id = await images.local.make({
      parent: undefined,
      layer: url ? await download(url, stream.signal) : ctx.req,
      config,
      author: "",
      comment: queryString(ctx, "message") || `Imported from ${url ?? "-"}`,
      createdBy: "",
      ...(platform ? { platform: parsePlatform(platform) } : {}),
      name,
      signal: stream.signal,
    });
    await stream.send({ status: id });
  });
}

/** As Docker reads it: what has no scheme is a host. */
function archiveUrl(source: string): string {
  const url = /^[a-z][a-z0-9+.-]*:\/\//i.test(source)
    ? source
    : `http://${source}`;
  if (!isUrl(url) || !URL.canParse(url)) {
    throw new InvalidParameter(
      `fromSrc: ${JSON.stringify(source)} is no URL of an archive: http and https are fetched`,
    );
  }
  return url;
}

async function download(url: string, signal: AbortSignal): Promise<Readable> {
  try {
    return (await fetchFile(url, signal)).body;
  } catch (error) {
    signal.throwIfAborted();
    throw new SystemError(
      error instanceof BadAnswer
        ? `Got HTTP status code >= 400: ${error.status}`
        : `cannot download ${url}: ${(error as Error).message}`,
    );
  }
}

async function save(
  ctx: ApiContext,
  images: ImageService,
  names: string[],
): Promise<void> {
  const archive = await images.local.save(names);
  await send(ctx, archive, "application/x-tar");
}

/** The `platform` of load, which newer clients send as JSON. */
function platformOf(ctx: ApiContext): string {
  const text = queryString(ctx, "platform") ?? "";
  if (!text.startsWith("{")) return text;
  try {
    const { os, architecture, variant } = JSON.parse(text) as Record<
      string,
      string | undefined
    >;
    return [os, architecture, variant].filter(Boolean).join("/");
  } catch {
    throw new InvalidParameter(`invalid value for platform: ${text}`);
  }
}

function imageName(ctx: ApiContext): string {
  const name: unknown = ctx.params["name"];
  return Array.isArray(name) ? name.join("/") : String(name);
}
