/**
 * Requests that ask for `Connection: Upgrade`. Node's HTTP server takes its parser off such a
 * connection at once and hands over the bare socket: the place from which a connection can be
 * hijacked with half-close working in both directions. The request still goes through the same
 * handlers as any other; a handler that does not hijack answers as usual and the connection ends.
 */
import {
  ServerResponse,
  type IncomingMessage,
  type RequestListener,
} from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { HttpFailure } from "./errors.js";

interface Upgrade {
  socket: Socket;
  /** Bytes of the request's body still in the socket. */
  bodyLeft: number;
}
const upgrades = new WeakMap<IncomingMessage, Upgrade>();

/** A listener for the server's "upgrade" event that feeds the request to `handle`. */
export function upgradeListener(handle: RequestListener) {
  return (req: IncomingMessage, duplex: Duplex, head: Buffer): void => {
    const socket = duplex as Socket;
    // Whoever reads or writes learns of an error by "close"; it must not end the process.
    socket.on("error", () => socket.destroy());
    if (head.length > 0) socket.unshift(head);
    upgrades.set(req, { socket, bodyLeft: declaredLength(req) });
    const res = new ServerResponse(req);
    res.shouldKeepAlive = false;
    res.assignSocket(socket);
    res.on("finish", () => {
      res.detachSocket(socket);
      socket.end();
      // The rest of what the client sent is of no interest, but its end has to be seen.
      socket.resume();
    });
    handle(req, res);
  };
}

/** Whether the request asked for its connection to be upgraded. */
export function isUpgrade(req: IncomingMessage): boolean {
  return upgrades.has(req);
}

/**
 * Reads the body of an upgrade request off its socket.
 * @throws {HttpFailure} 411 without a length, 413 over the limit, 400 when it is cut short
 */
export async function readUpgradeBody(
  req: IncomingMessage,
  limit: number,
): Promise<Buffer> {
  const upgrade = upgrades.get(req);
  if (upgrade === undefined) throw new Error("not an upgrade request");
  if (req.headers["transfer-encoding"] !== undefined) {
    throw new HttpFailure(
      411,
      "a request that upgrades its connection needs a Content-Length for its body",
    );
  }
  const length = upgrade.bodyLeft;
  upgrade.bodyLeft = 0;
  if (length > limit) {
    throw new HttpFailure(413, `request body larger than ${limit} bytes`);
  }
  return readExactly(upgrade.socket, length);
}

/** Takes exactly `length` bytes from a socket and leaves the rest in it. */
async function readExactly(socket: Socket, length: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let missing = length;
  while (missing > 0) {
    const available = Math.min(missing, socket.readableLength);
    const chunk =
      available > 0 ? (socket.read(available) as Buffer | null) : null;
    if (chunk !== null) {
      chunks.push(chunk);
      missing -= chunk.length;
      continue;
    }
    if (socket.readableEnded || socket.destroyed) {
      throw new HttpFailure(400, "the request body is cut short");
    }
    await readableOrOver(socket);
  }
  return Buffer.concat(chunks);
}

function readableOrOver(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.off("readable", done).off("end", done).off("close", done);
      resolve();
    };
    socket.on("readable", done).on("end", done).on("close", done);
  });
}

function declaredLength(req: IncomingMessage): number {
  // The parser has refused anything but digits.
  return Number(req.headers["content-length"] ?? 0);
}
