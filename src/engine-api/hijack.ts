/**
 * Hijacked connections: attach and exec take the whole connection over and speak raw bytes (or
 * framed ones, see raw-stream.ts) both ways. The client's half-close is the end of stdin only.
 */
import type { Socket } from "node:net";
import { PassThrough, type Readable } from "node:stream";
import type { ApiContext } from "./context.js";
import {
  frameHeader,
  MULTIPLEXED_STREAM,
  RAW_STREAM,
  StreamKind,
} from "./raw-stream.js";
import { MAX_JSON } from "./body.js";
import { isUpgrade, readUpgradeBody } from "./upgrade.js";

/** A client at the other end of a hijacked connection or a WebSocket. */
export interface AttachedClient {
  /** What the client sends. Ends when the client half-closes or goes away; never emits an error. */
  readonly stdin: Readable;
  /** Sends output. Resolves when the client can take more: false when it is gone. */
  stdout(chunk: Uint8Array): Promise<boolean>;
  stderr(chunk: Uint8Array): Promise<boolean>;
  /** No more output: the client reads end-of-file once it has read all that was sent. */
  end(): void;
  /** Aborted when the connection is over, whoever ended it. */
  readonly signal: AbortSignal;
  /** Resolves when `signal` is aborted. */
  readonly closed: Promise<void>;
}

export interface HijackOptions {
  /** Frame stdout and stderr (no terminal). */
  multiplexed: boolean;
  /** Whether stdin is wanted. Otherwise what the client sends is thrown away and `stdin` is empty. */
  stdin: boolean;
}

/** How long a client may keep its side open after `end` before the connection is destroyed. */
const LINGER_MS = 30_000;

/**
 * Takes the request's connection over and sends the answer's head: `101 UPGRADED` when the client asked
 * for it, otherwise `200 OK` and raw bytes, as older clients expect. No error can be answered after it.
 */
export async function hijack(
  ctx: ApiContext,
  options: HijackOptions,
): Promise<AttachedClient> {
  const upgrade = isUpgrade(ctx.req);
  // Some clients send a body that says nothing; it must not be read as stdin.
  if (upgrade) await readUpgradeBody(ctx.req, MAX_JSON);
  ctx.respond = false;
  // For the log: koa sends nothing any more.
  ctx.status = upgrade ? 101 : 200;
  const socket = upgrade ? detach(ctx) : await takeFromServer(ctx);
  const framed =
    upgrade && options.multiplexed && ctx.state.version.atLeast("1.42");
  const media = framed ? MULTIPLEXED_STREAM : RAW_STREAM;
  const [status, more] = upgrade
    ? ["101 UPGRADED", "Connection: Upgrade\r\nUpgrade: tcp\r\n"]
    : ["200 OK", ""];
  socket.write(
    `HTTP/1.1 ${status}\r\nContent-Type: ${media}\r\n${more}${serverHeaders(ctx)}\r\n`,
  );
  return new HijackedSocket(socket, options);
}

/** The headers every answer carries. */
function serverHeaders(ctx: ApiContext): string {
  return ["Api-Version", "Docker-Experimental", "Ostype", "Server"]
    .map((name) => `${name}: ${ctx.response.get(name)}\r\n`)
    .join("");
}

function detach(ctx: ApiContext): Socket {
  const socket = ctx.req.socket;
  ctx.res.detachSocket(socket);
  return socket;
}

/** Takes a connection that did not ask for an upgrade away from node's HTTP server. */
async function takeFromServer(ctx: ApiContext): Promise<Socket> {
  const { req, res } = ctx;
  const { socket } = req;
  req.resume();
  if (!req.readableEnded) {
    await new Promise<void>((resolve) => {
      req.on("end", resolve).on("close", resolve).on("error", resolve);
    });
  }
  // The server's listeners feed its parser; without them the bytes are ours. Its "close" listener
  // stays, because it frees the parser. Adding a "data" listener makes the server give the socket's
  // handle back to the socket.
  const ours = () => undefined;
  socket.on("data", ours);
  for (const event of ["data", "end", "drain", "timeout", "error"]) {
    socket.removeAllListeners(event);
  }
  socket.pause();
  socket.on("error", () => socket.destroy());
  socket.setTimeout(0);
  // Headers set so far are written by hand; the response object is never used again.
  res.on("error", () => undefined);
  return socket;
}

class HijackedSocket implements AttachedClient {
  readonly stdin: Readable;
  readonly signal: AbortSignal;
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #multiplexed: boolean;

  constructor(socket: Socket, options: HijackOptions) {
    this.#socket = socket;
    this.#multiplexed = options.multiplexed;
    socket.setNoDelay?.(true);
    const over = new AbortController();
    this.signal = over.signal;
    const stdin = new PassThrough();
    stdin.on("error", () => undefined);
    this.stdin = stdin;
    if (options.stdin) {
      socket.pipe(stdin);
    } else {
      stdin.end();
      socket.resume();
    }
    this.closed = new Promise((resolve) => {
      const close = () => {
        stdin.end();
        over.abort();
        resolve();
      };
      if (socket.destroyed) close();
      else socket.once("close", close);
    });
  }

  stdout(chunk: Uint8Array): Promise<boolean> {
    return this.#send(StreamKind.Stdout, chunk);
  }

  stderr(chunk: Uint8Array): Promise<boolean> {
    return this.#send(StreamKind.Stderr, chunk);
  }

  #send(kind: StreamKind, chunk: Uint8Array): Promise<boolean> {
    const socket = this.#socket;
    if (!socket.writable) return Promise.resolve(false);
    if (chunk.length === 0) return Promise.resolve(true);
    socket.cork();
    if (this.#multiplexed) socket.write(frameHeader(kind, chunk.length));
    const ready = socket.write(chunk);
    socket.uncork();
    return ready ? Promise.resolve(true) : drained(socket);
  }

  end(): void {
    const socket = this.#socket;
    if (socket.destroyed) return;
    // Input is of no use any more, but the client's end has to be seen: it closes the connection.
    socket.unpipe();
    (this.stdin as PassThrough).end();
    socket.resume();
    socket.end(() => {
      const timer = setTimeout(() => socket.destroy(), LINGER_MS);
      timer.unref();
      socket.once("close", () => clearTimeout(timer));
    });
  }
}

/** Resolves when a writable's buffer is empty (true) or it can take no more at all (false). */
export function drained(stream: NodeJS.WritableStream): Promise<boolean> {
  return new Promise((resolve) => {
    const drain = () => done(true);
    const over = () => done(false);
    const done = (usable: boolean) => {
      stream.off("drain", drain).off("close", over).off("error", over);
      resolve(usable);
    };
    stream.on("drain", drain).on("close", over).on("error", over);
  });
}
