/** The API without the CLI: plain requests as a client of any language would send, and dockerode. */
import http from "node:http";
import net from "node:net";
import Docker from "dockerode";
import { Daemon } from "./daemon.js";

export interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  text: string;
  /** The body as JSON, where it is. */
  json: unknown;
}

/** Sends one request to the shared daemon, or another one. A string body is sent as it is, anything else as JSON. */
export function api(
  method: string,
  path: string,
  body?: unknown,
  headers: http.OutgoingHttpHeaders = {},
  daemon = Daemon.shared(),
): Promise<Answer> {
  const bytes =
    body === undefined
      ? undefined
      : Buffer.isBuffer(body) || typeof body === "string"
        ? Buffer.from(body)
        : Buffer.from(JSON.stringify(body));
  return new Promise((resolve, reject) => {
    const request = http.request(
      {
        socketPath: daemon.socket,
        method,
        path,
        headers: {
          ...(bytes && {
            "content-type": "application/json",
            "content-length": bytes.length,
          }),
          ...headers,
        },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          let json: unknown;
          try {
            json = JSON.parse(text);
          } catch {
            json = undefined;
          }
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text,
            json,
          });
        });
      },
    );
    request.setTimeout(60_000, () =>
      request.destroy(new Error(`${method} ${path}: no answer`)),
    );
    request.on("error", reject);
    request.end(bytes);
  });
}

/** The `message` of an error answer. */
export function messageOf(answer: Answer): string {
  const { message } = (answer.json ?? {}) as { message?: unknown };
  return typeof message === "string" ? message : "";
}

/** Sends bytes to the socket as they are and collects what comes back until it is closed. */
export function rawRequest(
  bytes: string | Buffer,
  timeout = 10_000,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(Daemon.shared().socket);
    const chunks: Buffer[] = [];
    const done = () => resolve(Buffer.concat(chunks).toString("latin1"));
    socket.setTimeout(timeout, () => {
      socket.destroy();
      done();
    });
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNRESET" || error.code === "EPIPE") done();
      else reject(error);
    });
    socket.on("close", done);
    socket.write(bytes);
  });
}

/** A dockerode client of the shared daemon. */
export function dockerode(): Docker {
  return new Docker({ socketPath: Daemon.shared().socket });
}
