/** The endpoints of images, and of what registries have. What is not here is answered by missing.ts. */
import { InvalidParameter, notANumber } from "../errors.js";
import { LIST_FILTERS } from "../images/list.js";
import type { ProgressMessage } from "../images/progress.js";
import { parseReference, type Reference } from "../images/reference.js";
import {
  ANONYMOUS,
  type Credentials,
  decodeRegistryAuth,
} from "../images/registry/credentials.js";
import { RegistryError } from "../images/registry/errors.js";
import { SEARCH_FILTERS } from "../images/search.js";
import type { ImageService } from "../images/service.js";
import type { ApiContext, ApiRouter } from "./context.js";
import { HttpFailure } from "./errors.js";
import { importImage } from "./image-transfer.js";
import { queryBoolean, queryFilters, queryString } from "./query.js";
import {
  clientGone,
  type JsonStream,
  streamProgress,
} from "./response-stream.js";
import { untilFilter } from "./until-filter.js";

const PRUNE_FILTERS = ["dangling", "label", "label!", "until"];
/** A client that reads slowly misses counts of bytes once so much waits for it, and nothing else. */
const MAX_BACKLOG = 64 * 1024;

/** Registers /images and /distribution. */
export function imageRoutes(
  service: ImageService,
): (router: ApiRouter) => void {
  return (router) => {
    router.get("/images/json", async (ctx) => {
      const filters = queryFilters(ctx, LIST_FILTERS);
      const { version } = ctx.state;
      const images = await service.list(filters, {
        sharedSize: queryBoolean(ctx, "shared-size"),
        all: queryBoolean(ctx, "all"),
        until: untilFilter(filters),
      });
      ctx.body = images.map((image) => {
        const nameless =
          image.RepoTags.length === 0 && image.RepoDigests.length === 0;
        return {
          ...image,
          ...(nameless && !version.atLeast("1.43")
            ? { RepoTags: ["<none>:<none>"], RepoDigests: ["<none>@<none>"] }
            : {}),
          ...(version.atLeast("1.44") ? {} : { VirtualSize: image.Size }),
        };
      });
    });

    router.post("/images/create", async (ctx) => {
      if (queryString(ctx, "fromSrc")) return importImage(ctx, service);
      if (queryString(ctx, "fromImage") === undefined) {
        throw new InvalidParameter("fromImage: an image's name is required");
      }
      const reference = pullReference(
        queryString(ctx, "fromImage") ?? "",
        queryString(ctx, "tag") ?? "",
      );
      const credentials = credentialsHeader(ctx);
      await streamProgress(ctx, (stream) =>
        service.pull(reference, {
          platform: queryString(ctx, "platform") ?? "",
          credentials,
          progress: (message) => sendProgress(stream, message),
          signal: stream.signal,
        }),
      );
    });

    router.get("/images/search", async (ctx) => {
      ctx.body = await service.search(
        {
          term: queryString(ctx, "term") ?? "",
          limit: searchLimit(ctx),
          credentials: searchCredentials(ctx),
          signal: clientGone(ctx),
        },
        queryFilters(ctx, SEARCH_FILTERS),
      );
    });

    router.post("/images/prune", async (ctx) => {
      const filters = queryFilters(ctx, PRUNE_FILTERS);
      ctx.body = await service.prune(filters, untilFilter(filters));
    });

    router.get("/images/*name/json", async (ctx) => {
      const { version } = ctx.state;
      const image = await service.inspect(imageName(ctx));
      ctx.body = {
        ...image,
        ...(version.atLeast("1.44") ? {} : { VirtualSize: image.Size }),
      };
    });

    router.get("/images/*name/history", async (ctx) => {
      ctx.body = await service.history(imageName(ctx));
    });

    router.post("/images/*name/tag", async (ctx) => {
      const repository = queryString(ctx, "repo") ?? "";
      if (repository === "") {
        throw new InvalidParameter("repo: a repository name is required");
      }
      await service.tag(
        imageName(ctx),
        repository,
        queryString(ctx, "tag") ?? "",
      );
      ctx.status = 201;
      ctx.body = "";
    });

    router.delete("/images/*name", async (ctx) => {
      const name = imageName(ctx);
      if (name.trim() === "") {
        throw new InvalidParameter("image name cannot be blank");
      }
      ctx.body = await service.remove(name, queryBoolean(ctx, "force"));
    });

    router.get("/distribution/*name/json", async (ctx) => {
      try {
        ctx.body = await service.distribution(
          imageName(ctx),
          credentialsHeader(ctx),
          clientGone(ctx),
        );
      } catch (error) {
        throw registryFailure(error);
      }
    });
  };
}

/** The name in the path, slashes included. */
function imageName(ctx: ApiContext): string {
  const name: unknown = ctx.params["name"];
  return Array.isArray(name) ? name.join("/") : String(name);
}

/** What `fromImage` and `tag` ask for together: a digest wins, then the tag. */
function pullReference(fromImage: string, tag: string): Reference {
  const reference = parseReference(fromImage.trim());
  if (reference.digest !== undefined) {
    return reference.withDigest(reference.digest);
  }
  if (tag === "") return reference;
  return tag.includes(":") ? reference.withDigest(tag) : reference.withTag(tag);
}

function credentialsHeader(ctx: ApiContext): Credentials {
  return decodeRegistryAuth(ctx.get("X-Registry-Auth"));
}

/** Whoever cannot be understood searches as nobody, as with the Engine. */
function searchCredentials(ctx: ApiContext): Credentials {
  try {
    return credentialsHeader(ctx);
  } catch {
    return ANONYMOUS;
  }
}

/** @throws {InvalidParameter} no whole number, or less than nothing */
function searchLimit(ctx: ApiContext): number {
  const given = queryString(ctx, "limit") ?? "";
  if (given !== "" && !/^\+?\d{1,9}$/.test(given)) {
    throw new InvalidParameter(
      /^-\d+$/.test(given)
        ? "invalid limit specified"
        : `invalid limit specified: ${notANumber(given)}`,
    );
  }
  return Number(given);
}

function sendProgress(stream: JsonStream, message: ProgressMessage): void {
  const counts = message.progressDetail?.current !== undefined;
  if (counts && stream.backlog > MAX_BACKLOG) return;
  void stream.send(message);
}

/** A registry's own answer is passed on with its status. */
function registryFailure(error: unknown): unknown {
  if (!(error instanceof RegistryError)) return error;
  const { status, message } = error;
  return [401, 403, 404, 429].includes(status)
    ? new HttpFailure(status, message)
    : error;
}
