/** Container endpoints. */
import {
  Conflict,
  inWords,
  InvalidParameter,
  NotImplemented,
} from "../errors.js";
import { createRequestSchema } from "../containers/create-request.js";
import type { Container, WaitCondition } from "../containers/container.js";
import { attachContainer, type Client } from "../containers/attach.js";
import { detachKeysOf } from "../containers/detach-keys.js";
import { LIST_FILTERS } from "../containers/list.js";
import { logDetails } from "../containers/log/details.js";
import { readLog } from "../containers/log/reader.js";
import type { ContainerService } from "../containers/service.js";
import { updateRequestSchema } from "../containers/update.js";
import { inspectView, summaryView } from "../containers/views.js";
import { readJson } from "./body.js";
import type { ApiContext, ApiRouter } from "./context.js";
import { hijack } from "./hijack.js";
import { logQuery } from "./log-query.js";
import {
  queryBoolean,
  queryFilters,
  queryInteger,
  queryString,
} from "./query.js";
import { clientGone, OutputStream } from "./response-stream.js";
import { untilFilter } from "./until-filter.js";
import { psTable } from "./top.js";
import { acceptWebSocket } from "./websocket.js";

const WAIT_CONDITIONS: readonly string[] = [
  "not-running",
  "next-exit",
  "removed",
];
const PRUNE_FILTERS = ["until", "label", "label!"] as const;

export function containerRoutes(service: ContainerService) {
  const { lifecycle, execs } = service;
  const named = (ctx: ApiContext) => service.get(ctx.params["id"] ?? "");

  const attach = async (
    container: Container,
    client: Client,
    options: ReturnType<typeof attachOptions>,
  ) => {
    service.tell(container, "attach");
    const end = await attachContainer(container, client, options);
    if (end === "detached") service.tell(container, "detach");
  };

  return (router: ApiRouter): void => {
    router.get("/containers/json", async (ctx) => {
      const limit = queryInteger(ctx, "limit");
      const containers = await service.list({
        all: queryBoolean(ctx, "all"),
        ...(limit === undefined ? {} : { limit }),
        filters: queryFilters(ctx, LIST_FILTERS),
      });
      const size = queryBoolean(ctx, "size");
      ctx.body = await Promise.all(
        containers.map(async (container) => ({
          ...summaryView(container),
          ...(size ? await service.size(container) : {}),
        })),
      );
    });

    router.post("/containers/create", async (ctx) => {
      const request = await readJson(ctx, createRequestSchema);
      const { id, warnings } = await service.create(
        request,
        queryString(ctx, "name"),
        queryString(ctx, "platform"),
      );
      ctx.status = 201;
      ctx.body = { Id: id, Warnings: warnings };
    });

    router.get("/containers/:id/json", async (ctx) => {
      const container = named(ctx);
      ctx.body = {
        ...inspectView(container, execs.of(container)),
        ...(queryBoolean(ctx, "size") ? await service.size(container) : {}),
      };
    });

    router.post("/containers/:id/start", async (ctx) => {
      const name = queryString(ctx, "checkpoint");
      const directory = queryString(ctx, "checkpoint-dir");
      await lifecycle.start(
        named(ctx),
        ctx.state.receivedAt,
        name ? { name, ...(directory && { directory }) } : undefined,
      );
      ctx.status = 204;
    });

    router.post("/containers/:id/stop", async (ctx) => {
      const container = named(ctx);
      await inWords(`cannot stop container: ${ctx.params["id"]}`, () =>
        lifecycle.stop(container, stopOptions(ctx)),
      );
      ctx.status = 204;
    });

    router.post("/containers/:id/restart", async (ctx) => {
      await lifecycle.restart(named(ctx), stopOptions(ctx));
      ctx.status = 204;
    });

    router.post("/containers/:id/kill", async (ctx) => {
      await inWords(`cannot kill container: ${ctx.params["id"]}`, () =>
        lifecycle.kill(named(ctx), queryString(ctx, "signal") ?? ""),
      );
      ctx.status = 204;
    });

    router.post("/containers/:id/pause", async (ctx) => {
      await lifecycle.pause(named(ctx));
      ctx.status = 204;
    });

    router.post("/containers/:id/unpause", async (ctx) => {
      await lifecycle.unpause(named(ctx));
      ctx.status = 204;
    });

    router.post("/containers/:id/update", async (ctx) => {
      const request = await readJson(ctx, updateRequestSchema);
      await service.update(named(ctx), request);
      ctx.body = { Warnings: [] };
    });

    router.post("/containers/:id/rename", async (ctx) => {
      await service.rename(named(ctx), queryString(ctx, "name") ?? "");
      ctx.status = 204;
    });

    router.post("/containers/:id/resize", async (ctx) => {
      const { rows, columns } = terminalSize(ctx);
      await lifecycle.resize(named(ctx), rows, columns);
      ctx.status = 200;
    });

    router.post("/containers/:id/wait", async (ctx) => {
      const container = named(ctx);
      const condition = queryString(ctx, "condition") || "not-running";
      if (!WAIT_CONDITIONS.includes(condition)) {
        throw new InvalidParameter(`invalid condition: "${condition}"`);
      }
      const gone = clientGone(ctx);
      // Nobody reads the answer: without this the connection, half of which is closed, would stay for ever.
      gone.addEventListener("abort", () => ctx.res.destroy());
      const ended = container.wait(condition as WaitCondition, gone);
      // The head goes out now: clients start the container only when they know that it is waited for.
      ctx.respond = false;
      ctx.status = 200;
      ctx.set("Content-Type", "application/json");
      ctx.res.on("error", () => undefined);
      ctx.res.flushHeaders();
      ctx.res.end(JSON.stringify({ StatusCode: await ended }) + "\n");
    });

    router.delete("/containers/:id", async (ctx) => {
      if (queryBoolean(ctx, "link")) {
        throw new InvalidParameter("links are not supported (link)");
      }
      await service.remove(
        named(ctx),
        queryBoolean(ctx, "force"),
        queryBoolean(ctx, "v"),
      );
      ctx.status = 204;
    });

    router.post("/containers/prune", async (ctx) => {
      const filters = queryFilters(ctx, PRUNE_FILTERS);
      const { ids, bytes } = await service.prune(filters, untilFilter(filters));
      ctx.body = {
        ContainersDeleted: ids.length ? ids : null,
        SpaceReclaimed: bytes,
      };
    });

    router.get("/containers/:id/top", async (ctx) => {
      const processes = await service.processes(named(ctx));
      ctx.body = psTable(processes, queryString(ctx, "ps_args") ?? "");
    });

    router.get("/containers/:id/logs", async (ctx) => {
      const container = named(ctx);
      const { record } = container;
      const options = logQuery(ctx);
      if (record.hostConfig.LogConfig?.Type === "none") {
        throw new NotImplemented(
          "configured logging driver does not support reading",
        );
      }
      const stream = new OutputStream(ctx, !record.config.Tty);
      stream.open();
      const details = options.details ? `${logDetails(record)} ` : "";
      const records = readLog(container.log, options.read, stream.signal);
      for await (const { log: text, stream: name, time } of records) {
        if (!options[name]) continue;
        const line = (options.timestamps ? `${time} ` : "") + details + text;
        if (!(await stream[name](Buffer.from(line)))) return;
      }
      stream.end();
    });

    router.post("/containers/:id/attach", async (ctx) => {
      const container = named(ctx);
      const options = attachOptions(ctx);
      const tty = container.record.config.Tty;
      checkAttach(container.record.state.status);
      const client = await hijack(ctx, {
        multiplexed: !tty,
        stdin: options.stdin,
      });
      await attach(container, client, options);
    });

    router.get("/containers/:id/attach/ws", async (ctx) => {
      const container = named(ctx);
      const options = attachOptions(ctx);
      checkAttach(container.record.state.status);
      const client = await acceptWebSocket(ctx);
      await attach(container, client, options);
    });
  };
}

function checkAttach(status: string): void {
  if (status === "paused") {
    throw new Conflict(
      "container is paused, unpause the container before attach",
    );
  }
  if (status === "restarting") {
    throw new Conflict(
      "container is restarting, wait until the container is running",
    );
  }
}

function attachOptions(ctx: ApiContext) {
  return {
    stdin: queryBoolean(ctx, "stdin"),
    stdout: queryBoolean(ctx, "stdout"),
    stderr: queryBoolean(ctx, "stderr"),
    stream: queryBoolean(ctx, "stream"),
    logs: queryBoolean(ctx, "logs"),
    detachKeys: detachKeysOf(queryString(ctx, "detachKeys")),
  };
}

function stopOptions(ctx: ApiContext) {
  const timeout = queryInteger(ctx, "t");
  const signal = queryString(ctx, "signal");
  return {
    ...(timeout === undefined ? {} : { timeout }),
    ...(signal ? { signal } : {}),
  };
}

const MAX_TERMINAL = 65535;

/** `h` and `w` of a resize request, in characters. */
export function terminalSize(ctx: ApiContext) {
  const rows = queryInteger(ctx, "h") ?? Number.NaN;
  const columns = queryInteger(ctx, "w") ?? Number.NaN;
  for (const [name, value] of [
    ["h", rows],
    ["w", columns],
  ] as const) {
    if (!(value >= 0 && value <= MAX_TERMINAL)) {
      throw new InvalidParameter(`invalid value for ${name}: a size is needed`);
    }
  }
  return { rows, columns };
}
