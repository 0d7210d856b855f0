/** Keeps a port of the host from everybody else while the daemon runs. */
import { createSocket } from "node:dgram";
import { isIPv6 } from "node:net";
import { createServer } from "node:net";
import { SystemError } from "../errors.js";
import type { PortProtocol } from "./index.js";

export interface Reservation {
  /** Resolves when another process can have it. */
  close(): Promise<void>;
}

/** The host refused a port; `inUse` when another process has it. */
export class PortRefused extends SystemError {
  readonly inUse: boolean;

  constructor(message: string, inUse: boolean) {
    super(message);
    this.inUse = inUse;
  }
}

/**
 * Binds the port, so that the kernel says whether it is free and gives it to no one else. What comes in
 * is rewritten before it would get here, so nothing is ever served.
 * @throws {PortRefused} another process has the port, or the host does not have the address
 */
export function reservePort(
  protocol: PortProtocol,
  host: string,
  port: number,
): Promise<Reservation> {
  const reserve = protocol === "tcp" ? reserveTcp : reserveUdp;
  return reserve(host, port);
}

function reserveTcp(host: string, port: number): Promise<Reservation> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", (error) => reject(refusal(error, "tcp", host, port)));
    server.listen(
      { host, port, ipv6Only: isIPv6(host), exclusive: true },
      () => {
        server.on("error", () => undefined);
        server.unref();
        resolve({
          close: () => new Promise((closed) => server.close(() => closed())),
        });
      },
    );
  });
}

function reserveUdp(host: string, port: number): Promise<Reservation> {
  return new Promise((resolve, reject) => {
    const version = isIPv6(host);
    const socket = createSocket({
      type: version ? "udp6" : "udp4",
      ipv6Only: version,
    });
    socket.once("error", (error) => {
      socket.close();
      reject(refusal(error, "udp", host, port));
    });
    socket.bind({ address: host, port, exclusive: true }, () => {
      socket.on("error", () => undefined);
      socket.unref();
      resolve({
        close: () => new Promise((closed) => socket.close(() => closed())),
      });
    });
  });
}

const WORDS: Record<string, string> = {
  EADDRINUSE: "address already in use",
  EADDRNOTAVAIL: "cannot assign requested address",
  EACCES: "permission denied",
};

/** The kernel's refusal in Docker's words. */
export function refusal(
  error: Pick<NodeJS.ErrnoException, "code" | "message">,
  protocol: PortProtocol,
  host: string,
  port: number,
): PortRefused {
  const code = error.code ?? "";
  const address = isIPv6(host) ? `[${host}]` : host;
  return new PortRefused(
    `failed to bind host port ${address}:${port}/${protocol}: ${WORDS[code] ?? error.message}`,
    code === "EADDRINUSE",
  );
}
