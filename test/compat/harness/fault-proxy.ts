/** A proxy in front of a registry that misbehaves as told: bytes altered, connections cut. */
import http from "node:http";
import type { AddressInfo } from "node:net";
import type { RegistryAddress } from "./registry.js";

/** What goes wrong with the answer to a request. */
export type Fault =
  /** Changes one byte in the middle of the body. */
  | { kind: "corrupt" }
  /** Cuts the connection after so many bytes of the body. */
  | { kind: "cut"; after: number }
  /** Answers with this status instead. */
  | { kind: "status"; status: number; body?: string }
  /** Sends the body so slowly that it does not end in the test's time. */
  | { kind: "stall"; after: number };

export interface FaultProxy extends RegistryAddress {
  /** How many requests matched each rule so far, in the order the rules were given. */
  readonly hits: readonly number[];
  /** All requests, as "GET /v2/…". */
  readonly requests: readonly string[];
  stop(): Promise<void>;
}

/** Which requests a fault is for; `times` of them, then no more. */
export interface Rule {
  method?: string;
  path: RegExp;
  fault: Fault;
  times?: number;
}

/** Starts a proxy to a plain registry on a port of 127.0.0.1. */
export async function faultProxy(
  target: RegistryAddress,
  rules: Rule[],
): Promise<FaultProxy> {
  const hits = rules.map(() => 0);
  const requests: string[] = [];
  const server = http.createServer((request, response) => {
    const path = request.url ?? "/";
    requests.push(`${request.method} ${path}`);
    const at = rules.findIndex(
      (rule, index) =>
        rule.path.test(path) &&
        (rule.method ?? "GET") === request.method &&
        (hits[index] ?? 0) < (rule.times ?? Infinity),
    );
    const fault = rules[at]?.fault;
    if (at >= 0) hits[at] = (hits[at] ?? 0) + 1;
    if (fault?.kind === "status") {
      request.resume();
      response.writeHead(fault.status, { "content-type": "application/json" });
      response.end(fault.body ?? "");
      return;
    }
    const upstream = http.request(
      `http://${target.host}${path}`,
      // The registry writes its own address into redirects and challenges by the Host header.
      { method: request.method, headers: request.headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        if (!fault) {
          answer.pipe(response);
          return;
        }
        const chunks: Buffer[] = [];
        answer.on("data", (chunk: Buffer) => chunks.push(chunk));
        answer.on("error", () => response.destroy());
        answer.on("end", () => {
          const body = Buffer.concat(chunks);
          switch (fault.kind) {
            case "corrupt":
              body.writeUInt8(
                body.readUInt8(body.length >> 1) ^ 0x55,
                body.length >> 1,
              );
              response.end(body);
              break;
            case "cut":
              response.write(body.subarray(0, fault.after), () =>
                response.destroy(),
              );
              break;
            case "stall":
              response.write(body.subarray(0, fault.after));
              break;
          }
        });
      },
    );
    upstream.on("error", () => response.destroy());
    response.on("close", () => upstream.destroy());
    request.pipe(upstream);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    host: `127.0.0.1:${port}`,
    scheme: "http",
    hits,
    requests,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
