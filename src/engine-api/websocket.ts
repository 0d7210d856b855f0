/** Attach over a WebSocket: binary frames of raw bytes, stdout and stderr not told apart. */
import { PassThrough, type Readable } from "node:stream";
import { WebSocket, WebSocketServer } from "ws";
import { InvalidParameter } from "../errors.js";
import type { ApiContext } from "./context.js";
import type { AttachedClient } from "./hijack.js";
import { isUpgrade } from "./upgrade.js";

/** Largest message a client may send, in bytes. */
const MAX_MESSAGE = 1024 * 1024;
/** Output beyond this many unsent bytes waits. */
const HIGH_WATER = 256 * 1024;

const server = new WebSocketServer({
  noServer: true,
  clientTracking: false,
  perMessageDeflate: false,
  maxPayload: MAX_MESSAGE,
  // The Engine's clients offer no subprotocol they insist on.
  handleProtocols: () => false,
});

/**
 * Accepts the WebSocket the request asks for.
 * @throws {InvalidParameter} it asks for none
 */
export function acceptWebSocket(ctx: ApiContext): Promise<AttachedClient> {
  const { req, res } = ctx;
  if (!isUpgrade(req) || ctx.get("Upgrade").toLowerCase() !== "websocket") {
    throw new InvalidParameter("this endpoint needs a WebSocket connection");
  }
  ctx.respond = false;
  // For the log: koa sends nothing any more.
  ctx.status = 101;
  const { socket } = req;
  res.detachSocket(socket);
  return new Promise((resolve, reject) => {
    // ws answers a broken handshake by itself and closes the socket; its own callback stays silent.
    socket.once("close", () =>
      reject(new InvalidParameter("the WebSocket handshake failed")),
    );
    server.handleUpgrade(req, socket, Buffer.alloc(0), (webSocket) => {
      resolve(new WebSocketClient(webSocket));
    });
  });
}

class WebSocketClient implements AttachedClient {
  readonly stdin: Readable;
  readonly signal: AbortSignal;
  readonly closed: Promise<void>;
  readonly #webSocket: WebSocket;

  constructor(webSocket: WebSocket) {
    this.#webSocket = webSocket;
    const over = new AbortController();
    this.signal = over.signal;
    const stdin = new PassThrough();
    stdin.on("error", () => undefined);
    stdin.on("drain", () => webSocket.resume());
    this.stdin = stdin;
    webSocket.on("error", () => webSocket.terminate());
    webSocket.on("message", (data: Buffer) => {
      if (!stdin.writableEnded && !stdin.write(data)) webSocket.pause();
    });
    this.closed = new Promise((resolve) => {
      webSocket.once("close", () => {
        stdin.end();
        over.abort();
        resolve();
      });
    });
  }

  stdout(chunk: Uint8Array): Promise<boolean> {
    const webSocket = this.#webSocket;
    if (webSocket.readyState !== WebSocket.OPEN) return Promise.resolve(false);
    if (chunk.length === 0) return Promise.resolve(true);
    return new Promise((resolve) => {
      webSocket.send(chunk, { binary: true }, (error) => {
        resolve(error === undefined || error === null);
      });
      if (webSocket.bufferedAmount <= HIGH_WATER) resolve(true);
    });
  }

  stderr(chunk: Uint8Array): Promise<boolean> {
    return this.stdout(chunk);
  }

  end(): void {
    this.#webSocket.resume();
    this.#webSocket.close(1000);
  }
}
