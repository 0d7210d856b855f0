/** For tests: the API on a real socket in a folder of its own. */
import { mkdtemp, rm } from "node:fs/promises";
import { request, type IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { pino } from "pino";
import type { ApiRouter } from "./context.js";
import { createApi, createApiServer } from "./server.js";

export interface TestServer {
  /** Path of the Unix socket it listens on. */
  path: string;
  /** A bare connection. */
  connect(): Socket;
  /** One request with its whole answer. */
  request(
    method: string,
    url: string,
    body?: string,
    headers?: Record<string, string>,
  ): Promise<TestAnswer>;
}

export interface TestAnswer {
  status: number;
  headers: IncomingMessage["headers"];
  text: string;
  json: () => unknown;
}

/** Serves until the test is over. */
export async function serve(
  t: TestContext,
  ...groups: ((router: ApiRouter) => void)[]
): Promise<TestServer> {
  const directory = await mkdtemp(join(tmpdir(), "hull-api-"));
  const path = join(directory, "s");
  const api = createApi({
    log: pino({ level: "silent" }),
    serverVersion: "0.0.0",
    groups,
  });
  const server = createApiServer(api);
  await new Promise<void>((resolve) => server.server.listen(path, resolve));
  t.after(async () => {
    await server.close(0);
    await rm(directory, { recursive: true });
  });
  return {
    path,
    connect: () => connect({ path, allowHalfOpen: true }),
    request: (method, url, body, headers) =>
      new Promise((resolve, reject) => {
        const req = request(
          {
            socketPath: path,
            method,
            path: url,
            agent: false,
            headers: {
              ...(body === undefined
                ? {}
                : {
                    "Content-Type": "application/json",
                    "Content-Length": String(Buffer.byteLength(body)),
                  }),
              ...headers,
            },
          },
          (res) => {
            let text = "";
            res.setEncoding("utf8");
            res.on("data", (chunk: string) => (text += chunk));
            res.on("end", () => {
              resolve({
                status: res.statusCode ?? 0,
                headers: res.headers,
                text,
                json: () => JSON.parse(text) as unknown,
              });
            });
            res.on("error", reject);
          },
        );
        req.on("error", reject);
        req.end(body);
      }),
  };
}

/** All that a socket sends until it ends. */
export async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
