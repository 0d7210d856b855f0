/** Endpoints of containers' files: archives (`docker cp`), export, changes. */
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setImmediate } from "node:timers/promises";
import { decompressUnknown } from "../archive/decompress.js";
import type { ContainerService } from "../containers/service.js";
import { HullError, InvalidParameter } from "../errors.js";
import type { PathStat } from "../../protocol/index.js";
import type { ApiContext, ApiRouter } from "./context.js";
import { queryBoolean, queryString } from "./query.js";
import { clientGone } from "./response-stream.js";

const STAT_HEADER = "X-Docker-Container-Path-Stat";

export function fileRoutes(service: ContainerService) {
  const { files } = service;
  const named = (ctx: ApiContext) => service.get(ctx.params["id"] ?? "");

  return (router: ApiRouter): void => {
    router.head("/containers/:id/archive", async (ctx) => {
      const stat = await files.stat(named(ctx), pathOf(ctx));
      ctx.set(STAT_HEADER, statHeader(stat));
      ctx.status = 200;
      ctx.body = null;
      ctx.status = 200;
    });

    router.get("/containers/:id/archive", async (ctx) => {
      const { stat, archive } = await files.archive(named(ctx), pathOf(ctx));
      ctx.set(STAT_HEADER, statHeader(stat));
      await send(ctx, archive, "application/x-tar");
    });

    router.put("/containers/:id/archive", async (ctx) => {
      const container = named(ctx);
      const path = pathOf(ctx);
      const { output, done } = await decompressUnknown(
        ctx.req,
        clientGone(ctx),
      );
      try {
        await files.extract(container, path, output, {
          owner: queryBoolean(ctx, "copyUIDGID")
            ? container.record.config.User
            : "",
          keepKinds: queryBoolean(ctx, "noOverwriteDirNonDir"),
        });
        await done;
      } catch (error) {
        // What is left of the body is read, so that the client reads the answer.
        ctx.req.resume();
        const broken = await Promise.race([
          done.then(
            () => undefined,
            (reason: Error) => reason,
          ),
          setImmediate(),
        ]);
        const why = broken ?? (error as Error);
        throw why instanceof HullError
          ? why
          : new InvalidParameter(`invalid archive: ${why.message}`);
      }
      ctx.status = 200;
    });

    router.get("/containers/:id/export", async (ctx) => {
      const archive = await files.export(named(ctx));
      await send(ctx, archive, "application/octet-stream");
    });

    router.get("/containers/:id/changes", async (ctx) => {
      ctx.body = await files.changes(named(ctx));
    });
  };
}

function pathOf(ctx: ApiContext): string {
  const path = queryString(ctx, "path");
  if (!path) throw new InvalidParameter("bad parameter: path is empty");
  if (path.includes("\0")) {
    throw new InvalidParameter("invalid value for path: it contains a NUL");
  }
  return path;
}

/** Answers with a stream. One that breaks off breaks the connection, so that nobody takes it for whole. */
export async function send(
  ctx: ApiContext,
  stream: Readable,
  contentType: string,
): Promise<void> {
  ctx.respond = false;
  ctx.status = 200;
  ctx.set("Content-Type", contentType);
  ctx.res.flushHeaders();
  try {
    await pipeline(stream, ctx.res);
  } catch (error) {
    const gone = ctx.res.destroyed;
    ctx.res.destroy();
    // Nobody is there to be told.
    if (!gone) throw error;
  }
}

function statHeader(stat: PathStat): string {
  return Buffer.from(
    JSON.stringify({
      name: stat.name,
      size: stat.size,
      mode: goFileMode(stat.mode),
      mtime: goTime(stat),
      linkTarget: stat.linkTarget,
    }),
  ).toString("base64");
}

/** Bits of Go's fs.FileMode for st_mode's formats and flags. */
const GO_FORMATS: Record<number, number> = {
  0o040000: 2 ** 31,
  0o120000: 2 ** 27,
  0o060000: 2 ** 26,
  0o010000: 2 ** 25,
  0o140000: 2 ** 24,
  0o020000: 2 ** 26 + 2 ** 21,
};
const GO_FLAGS: readonly (readonly [number, number])[] = [
  [0o4000, 2 ** 23],
  [0o2000, 2 ** 22],
  [0o1000, 2 ** 20],
];

/** st_mode as Go writes it. */
export function goFileMode(mode: number): number {
  let result = (mode & 0o777) + (GO_FORMATS[mode & 0o170000] ?? 0);
  for (const [bit, value] of GO_FLAGS) if (mode & bit) result += value;
  return result;
}

/** RFC 3339 with as many digits as are needed. */
function goTime({ seconds, nanoseconds }: PathStat): string {
  const fraction = nanoseconds
    ? `.${String(nanoseconds).padStart(9, "0").replace(/0+$/, "")}`
    : "";
  const limited = Math.max(-62135596800, Math.min(253402300799, seconds));
  return new Date(limited * 1000)
    .toISOString()
    .replace(/\.\d+Z$/, `${fraction}Z`);
}
