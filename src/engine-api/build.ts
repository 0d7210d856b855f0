/** `POST /build`: the classic builder. */
import { z } from "zod";
import { type Builder, CommandFailed } from "../builder/builder.js";
import { remoteContext } from "../builder/remote.js";
import type { BuildOptions } from "../builder/options.js";
import type { HostConfig } from "../containers/create-request.js";
import { refuseImpossible } from "../containers/unsupported.js";
import { InvalidParameter, NotImplemented } from "../errors.js";
import { nameOf } from "../images/local/new-image.js";
import { BUILD_PRUNE_FILTERS, type BuildCache } from "../images/build-cache.js";
import {
  ANONYMOUS,
  type Credentials,
  credentialsOf,
} from "../images/registry/credentials.js";
import type { ApiContext, ApiRouter } from "./context.js";
import { messageOf } from "./errors.js";
import {
  queryBoolean,
  queryFilters,
  queryInteger,
  queryString,
  queryStrings,
} from "./query.js";
import { untilFilter } from "./until-filter.js";
import { JsonStream } from "./response-stream.js";

// Go's clients send "null" where they have nothing.
const Pairs = z.record(z.string(), z.string().nullable()).nullable();
const Ulimits = z
  .array(z.object({ Name: z.string(), Soft: z.int(), Hard: z.int() }))
  .nullable();

export function buildRoutes(builder: Builder, cache: BuildCache) {
  return (router: ApiRouter): void => {
    router.post("/build/prune", async (ctx) => {
      const filters = queryFilters(ctx, BUILD_PRUNE_FILTERS);
      ctx.body = await cache.prune({
        all: queryBoolean(ctx, "all"),
        until: untilFilter(filters),
        filters,
        keepBytes: Math.max(
          0,
          ...["keep-storage", "reserved-space", "max-used-space"].map(
            (name) => queryInteger(ctx, name) ?? 0,
          ),
        ),
        freeBytes: queryInteger(ctx, "min-free-space") ?? 0,
      });
    });

    router.post("/build", async (ctx) => {
      const stream = new JsonStream(ctx);
      const quiet = queryBoolean(ctx, "q");
      const options = buildOptions(ctx, stream, quiet);
      try {
        const remote = queryString(ctx, "remote") ?? "";
        const { archive, ...own } =
          remote === "" || remote === "client-session"
            ? { archive: ctx.req }
            : await remoteContext(remote, stream.signal);
        const image = await builder.build(archive, { ...options, ...own });
        if (quiet) await stream.send({ stream: `${image}\n` });
      } catch (error) {
        // What is left of the context is read, so that the client reads the answer.
        ctx.req.resume();
        if (!stream.opened) throw error;
        const message = messageOf(error);
        await stream.send({
          errorDetail: {
            ...(error instanceof CommandFailed ? { code: error.code } : {}),
            message,
          },
          error: message,
        });
      }
      stream.end();
    });
  };
}

/** @throws {InvalidParameter} naming the parameter */
function buildOptions(
  ctx: ApiContext,
  stream: JsonStream,
  quiet: boolean,
): BuildOptions {
  if (queryString(ctx, "version") === "2") {
    throw new NotImplemented(
      "hull has no BuildKit: build with the classic builder (DOCKER_BUILDKIT=0)",
    );
  }
  for (const name of ["squash", "outputs", "cachefrom"]) {
    const value = queryString(ctx, name) ?? "";
    if (["", "0", "false", "[]", "null"].includes(value)) continue;
    throw new NotImplemented(`${name}: hull's builder does not do this`);
  }
  const registry = registryConfig(ctx.get("X-Registry-Config"));
  return {
    dockerfile: queryString(ctx, "dockerfile") || "Dockerfile",
    names: queryStrings(ctx, "t").flatMap((text) => nameOf(text, "") ?? []),
    target: queryString(ctx, "target") ?? "",
    buildArgs: pairs(ctx, "buildargs"),
    labels: pairs(ctx, "labels"),
    noCache: queryBoolean(ctx, "nocache"),
    pull: queryBoolean(ctx, "pull"),
    remove: queryBoolean(ctx, "rm", true),
    forceRemove: queryBoolean(ctx, "forcerm"),
    platform: queryString(ctx, "platform") ?? "",
    host: hostConfig(ctx),
    credentials: (domain) =>
      registry.get(domain) ??
      (domain === "docker.io"
        ? registry.get("https://index.docker.io/v1/")
        : undefined) ??
      ANONYMOUS,
    say: (line) => {
      if (!quiet) void stream.send(line);
    },
    signal: stream.signal,
  };
}

function hostConfig(ctx: ApiContext): HostConfig {
  const numbers = {
    Memory: queryInteger(ctx, "memory"),
    MemorySwap: queryInteger(ctx, "memswap"),
    CpuShares: queryInteger(ctx, "cpushares"),
    CpuPeriod: queryInteger(ctx, "cpuperiod"),
    CpuQuota: queryInteger(ctx, "cpuquota"),
    ShmSize: queryInteger(ctx, "shmsize"),
  };
  const hosts = queryString(ctx, "extrahosts") ?? "";
  const texts = {
    CpusetCpus: queryString(ctx, "cpusetcpus"),
    CpusetMems: queryString(ctx, "cpusetmems"),
    CgroupParent: queryString(ctx, "cgroupparent"),
    Isolation: queryString(ctx, "isolation"),
  };
  const host = {
    ...Object.fromEntries(
      Object.entries(numbers).filter(([, value]) => Boolean(value)),
    ),
    NetworkMode: queryString(ctx, "networkmode") || "default",
    ...(hosts ? { ExtraHosts: jsonOrList(hosts) } : {}),
    ...(queryString(ctx, "ulimits")
      ? { Ulimits: json(ctx, "ulimits", Ulimits) ?? [] }
      : {}),
    ...Object.fromEntries(
      Object.entries(texts).filter(([, value]) => Boolean(value)),
    ),
  };
  // Before the first step, not with the first RUN.
  refuseImpossible(host);
  return host;
}

function jsonOrList(text: string): string[] {
  try {
    return z.array(z.string()).parse(JSON.parse(text));
  } catch {
    return text.split(",");
  }
}

/** An object of texts; null takes the value of the builder's own environment, which has none. */
function pairs(ctx: ApiContext, name: string): Map<string, string> {
  if (!queryString(ctx, name)) return new Map();
  return new Map(
    Object.entries(json(ctx, name, Pairs) ?? {}).flatMap(([key, value]) =>
      value === null ? [] : [[key, value] as const],
    ),
  );
}

function json<Schema extends z.ZodType>(
  ctx: ApiContext,
  name: string,
  schema: Schema,
): z.output<Schema> {
  try {
    return schema.parse(JSON.parse(queryString(ctx, name) ?? ""));
  } catch {
    throw new InvalidParameter(`invalid value for ${name}: malformed JSON`);
  }
}

/** X-Registry-Config: credentials by registry, as JSON in base64. */
function registryConfig(header: string): Map<string, Credentials> {
  if (header === "") return new Map();
  try {
    const all = z
      .record(z.string(), z.unknown())
      .parse(JSON.parse(Buffer.from(header, "base64").toString("utf8")));
    return new Map(
      Object.entries(all).map(([host, auth]) => [host, credentialsOf(auth)]),
    );
  } catch {
    throw new InvalidParameter("X-Registry-Config: malformed");
  }
}
