/** Answers that are sent bit by bit: logs, events, progress. */
import type { ApiContext } from "./context.js";
import { messageOf } from "./errors.js";
import { drained } from "./hijack.js";
import {
  frameHeader,
  MULTIPLEXED_STREAM,
  RAW_STREAM,
  StreamKind,
} from "./raw-stream.js";

/** Aborted when the request's client has gone away (or closed its sending side). */
export function clientGone(ctx: ApiContext): AbortSignal {
  const gone = new AbortController();
  const abort = () => gone.abort();
  const { res } = ctx;
  const { socket } = ctx.req;
  if (socket.destroyed || socket.readableEnded) abort();
  res.once("close", abort);
  socket.once("end", abort);
  res.once("finish", () => socket.off("end", abort));
  return gone.signal;
}

/**
 * An answer in chunks. Nothing is sent until the first write (or `open`), so that until then an
 * error can still be answered with its own status.
 */
export class ResponseStream {
  /** Aborted when the client has gone away. */
  readonly signal: AbortSignal;
  readonly #ctx: ApiContext;
  readonly #contentType: string;

  constructor(ctx: ApiContext, contentType: string) {
    this.#ctx = ctx;
    this.#contentType = contentType;
    this.signal = clientGone(ctx);
  }

  /** Whether the answer's head was sent. */
  get opened(): boolean {
    return this.#ctx.headerSent;
  }

  /** Sends the answer's head: 200 and the headers. */
  open(): void {
    const ctx = this.#ctx;
    if (ctx.headerSent) return;
    ctx.respond = false;
    ctx.res.on("error", () => undefined);
    ctx.status = 200;
    ctx.set("Content-Type", this.#contentType);
    ctx.res.flushHeaders();
  }

  /** Resolves when the client can take more: false when it is gone. */
  write(chunk: Uint8Array | string): Promise<boolean> {
    this.open();
    const { res } = this.#ctx;
    if (!res.writable || this.signal.aborted) return Promise.resolve(false);
    return res.write(chunk) ? Promise.resolve(true) : drained(res);
  }

  /** Bytes written that the client has not taken yet. */
  get backlog(): number {
    return this.#ctx.res.writableLength;
  }

  /** Ends the answer. */
  end(): void {
    this.open();
    this.#ctx.res.end();
  }
}

/** A stream of JSON objects, one a line. */
export class JsonStream extends ResponseStream {
  constructor(ctx: ApiContext) {
    super(ctx, "application/json");
  }

  send(message: unknown): Promise<boolean> {
    return this.write(JSON.stringify(message) + "\r\n");
  }
}

/**
 * Runs an operation that reports its progress as JSON lines (pull, push, load, build). An error before
 * the first line is answered with its status; a later one becomes the stream's last line.
 */
export async function streamProgress(
  ctx: ApiContext,
  run: (stream: JsonStream) => Promise<void>,
): Promise<void> {
  const stream = new JsonStream(ctx);
  try {
    await run(stream);
  } catch (error) {
    if (!stream.opened) throw error;
    const message = messageOf(error);
    await stream.send({ errorDetail: { message }, error: message });
  }
  stream.end();
}

/** A container's output in an answer: framed per stream, or raw when it has a terminal. */
export class OutputStream extends ResponseStream {
  readonly #multiplexed: boolean;

  constructor(ctx: ApiContext, multiplexed: boolean) {
    super(
      ctx,
      multiplexed && ctx.state.version.atLeast("1.42")
        ? MULTIPLEXED_STREAM
        : RAW_STREAM,
    );
    this.#multiplexed = multiplexed;
  }

  stdout(chunk: Uint8Array): Promise<boolean> {
    return this.#send(StreamKind.Stdout, chunk);
  }

  stderr(chunk: Uint8Array): Promise<boolean> {
    return this.#send(StreamKind.Stderr, chunk);
  }

  #send(kind: StreamKind, chunk: Uint8Array): Promise<boolean> {
    if (chunk.length === 0) return Promise.resolve(!this.signal.aborted);
    if (!this.#multiplexed) return this.write(chunk);
    return this.write(Buffer.concat([frameHeader(kind, chunk.length), chunk]));
  }
}
