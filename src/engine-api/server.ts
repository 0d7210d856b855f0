/** The HTTP server of the Engine API: what is common to every endpoint. */
import Router, { type RouterContext } from "@koa/router";
import {
  createServer,
  type RequestListener,
  type Server,
  type ServerOptions,
} from "node:http";
import {
  createServer as createTlsServer,
  type ServerOptions as TlsServerOptions,
} from "node:https";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { TlsOptions } from "node:tls";
import Koa, { type Middleware } from "koa";
import type { Logger } from "pino";
import { InvalidParameter, NotFound } from "../errors.js";
import type { ApiRouter, ApiState } from "./context.js";
import { errorHandler } from "./errors.js";
import { missingRoutes } from "./missing.js";
import { upgradeListener } from "./upgrade.js";
import { checkVersion, MAX_API_VERSION, splitVersion } from "./version.js";

export interface ApiOptions {
  log: Logger;
  /** hull's own version, for the Server header. */
  serverVersion: string;
  /** Each registers the endpoints of one group. */
  groups: ((router: ApiRouter) => void)[];
  /** Is told of every request that was answered, or handed over to a connection of its own. */
  observer?: RequestObserver;
}

/** For statistics of requests. */
export type RequestObserver = (request: {
  method: string;
  /** The route's pattern, e.g. "/containers/:id/start"; undefined for a page that is not there. */
  route: string | undefined;
  status: number;
  seconds: number;
}) => void;

/** Builds the handler of all requests. */
export function createApi(options: ApiOptions): RequestListener {
  const { log } = options;
  const router: ApiRouter = new Router<ApiState>({
    sensitive: true,
    strict: true,
  });
  // Runs for matched routes only: an unknown page is unknown whatever version it is asked for in.
  router.use((ctx, next) => {
    checkVersion(ctx.state.version);
    return next();
  });
  for (const group of options.groups) group(router);
  missingRoutes(router);

  const app = new Koa<ApiState>();
  app.silent = true;
  app.on("error", (error: Error) => {
    log.debug({ err: error }, "a response could not be finished");
  });
  app.use(logRequests(log, options.observer));
  app.use(headers(options.serverVersion));
  app.use(jsonAnswers);
  app.use(errorHandler(log));
  app.use((ctx, next) => {
    const { version, path } = splitVersion(ctx.path);
    ctx.state.version = version ?? MAX_API_VERSION;
    ctx.path = path;
    if (!decodes(path)) {
      throw new InvalidParameter(`invalid URL escape in ${path}`);
    }
    return next();
  });
  app.use(router.routes());
  app.use(() => {
    throw new NotFound("page not found");
  });
  const handle = app.callback();
  return (req, res) => {
    handle(req, res).catch((error: unknown) => {
      log.error({ err: error }, "a request could not be answered");
      res.destroy();
    });
  };
}

function decodes(path: string): boolean {
  try {
    decodeURIComponent(path);
    return true;
  } catch {
    return false;
  }
}

function logRequests(
  log: Logger,
  observe?: RequestObserver,
): Middleware<ApiState, RouterContext<ApiState>> {
  return async (ctx, next) => {
    const begin = performance.now();
    ctx.state.receivedAt = begin;
    const request = `${ctx.method} ${ctx.url}`;
    log.debug({ request }, "request");
    await next();
    const ms = performance.now() - begin;
    const { method, status } = ctx;
    log.debug({ request, status, ms: Math.round(ms) }, "answered");
    const matched = ctx._matchedRoute;
    const route = typeof matched === "string" ? matched : undefined;
    observe?.({ method, route, status, seconds: ms / 1000 });
  };
}

function headers(serverVersion: string): Middleware {
  return (ctx, next) => {
    ctx.set("Api-Version", MAX_API_VERSION.text);
    // `docker checkpoint` is shown by it.
    ctx.set("Docker-Experimental", "true");
    ctx.set("Ostype", "linux");
    ctx.set("Server", `hull/${serverVersion} (linux)`);
    return next();
  };
}

/** Sends objects as the Engine does: some clients compare the Content-Type as a whole. */
const jsonAnswers: Middleware = async (ctx, next) => {
  await next();
  const body: unknown = ctx.body;
  const plain =
    Array.isArray(body) ||
    (typeof body === "object" &&
      body !== null &&
      Object.getPrototypeOf(body) === Object.prototype);
  if (ctx.respond === false || !plain) return;
  ctx.set("Content-Type", "application/json");
  ctx.remove("Content-Length");
  ctx.body = JSON.stringify(body) + "\n";
};

/** Largest head of a request, in bytes: credentials travel in headers, filters in the URL. */
const MAX_HEADER = 64 * 1024;
/** How long an unused connection is kept. */
const IDLE_TIMEOUT_MS = 300_000;

/** How one listener is served. */
export interface ServeOptions {
  /** Speak TLS. */
  tls?: TlsOptions;
  /** How long a client may take to send a request's head, in milliseconds. */
  headersTimeoutMs?: number;
  /** Connections beyond so many are closed at once. */
  maxConnections?: number;
  /** Is told of each of them. */
  onRefused?: () => void;
}

function serverOptions(headersTimeout = 30_000): ServerOptions {
  return {
    maxHeaderSize: MAX_HEADER,
    headersTimeout,
    keepAliveTimeout: IDLE_TIMEOUT_MS,
    // Image and build uploads take as long as they take; JSON bodies have a limit of their own.
    requestTimeout: 0,
    connectionsCheckingInterval: Math.min(headersTimeout / 2, 5_000),
  };
}

/** An HTTP server that can be ended with all it still serves. */
export interface ApiServer {
  readonly server: Server;
  /** Stops accepting, gives running requests `graceMs` to end, then closes every connection. */
  close(graceMs: number): Promise<void>;
}

/** Makes the server of one listener. */
export function createApiServer(
  api: RequestListener,
  { tls, headersTimeoutMs, maxConnections, onRefused }: ServeOptions = {},
): ApiServer {
  const options = serverOptions(headersTimeoutMs);
  const server: Server =
    tls === undefined
      ? createServer(options, api)
      : createTlsServer(
          { ...options, ...tls, allowHalfOpen: true } as TlsServerOptions,
          api,
        );
  // A client may half-close once its request is sent; it still gets its answer. The property is
  // node's own but missing from its documentation and types.
  (server as Server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
  if (maxConnections !== undefined) server.maxConnections = maxConnections;
  if (onRefused) server.on("drop", onRefused);
  const sockets = new Set<Socket>();
  server.on(
    tls === undefined ? "connection" : "secureConnection",
    (socket: Socket) => {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
    },
  );
  server.on("upgrade", upgradeListener(api));
  server.on("clientError", refuseMalformed);
  server.on("tlsClientError", (_error: Error, socket: Socket) => {
    socket.destroy();
  });
  return {
    server,
    async close(graceMs) {
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      server.closeIdleConnections();
      const timer = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, graceMs);
      await closed;
      clearTimeout(timer);
    },
  };
}

/** Answers what is not HTTP, or too much or too slow of it. */
function refuseMalformed(
  error: Error & { code?: string },
  socket: Duplex,
): void {
  socket.on("error", () => socket.destroy());
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const status =
    error.code === "HPE_HEADER_OVERFLOW"
      ? "431 Request Header Fields Too Large"
      : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? "408 Request Timeout"
        : "400 Bad Request";
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n${status}`,
    () => socket.destroy(),
  );
}
