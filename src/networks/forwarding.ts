/**
 * Passes on what arrives at a port of the host to a container, where the kernel's rules cannot: they do
 * not turn IPv6 into IPv4.
 */
import { createSocket, type RemoteInfo, type Socket as Udp } from "node:dgram";
import { connect, createServer, isIPv6, type Socket } from "node:net";
import type { PortProtocol } from "./index.js";

export interface ForwardRequest {
  protocol: PortProtocol;
  /** Where it listens; an IPv6 address takes no IPv4. */
  host: string;
  port: number;
  /** The container. */
  target: { host: string; port: number };
}

export interface Forward {
  /** Frees the port and ends all connections that came by it. */
  close(): Promise<void>;
}

/** What clients have open at one port; more are turned away. */
const MAX_CONNECTIONS = 4096;
const MAX_UDP_CLIENTS = 1024;
/** How long a client of UDP may be silent, in ms, as in Docker. */
const UDP_IDLE = 90_000;

/** @throws {NodeJS.ErrnoException} the port is taken, or the host does not have the address */
export function forward(request: ForwardRequest): Promise<Forward> {
  return request.protocol === "tcp" ? forwardTcp(request) : forwardUdp(request);
}

function forwardTcp(request: ForwardRequest): Promise<Forward> {
  const { host, port, target } = request;
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true });
  server.maxConnections = MAX_CONNECTIONS;
  server.on("connection", (client) => {
    const container = connect({ ...target, allowHalfOpen: true });
    container.setNoDelay(true);
    for (const [socket, other] of [
      [client, container],
      [container, client],
    ] as const) {
      sockets.add(socket);
      // One that breaks breaks the other one, without a word of a good end.
      socket.on("error", () => other.resetAndDestroy());
      socket.on("close", () => {
        sockets.delete(socket);
        if (!socket.readableEnded) other.destroy();
      });
      socket.pipe(other);
    }
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(
      { host, port, ipv6Only: isIPv6(host), exclusive: true },
      () => {
        server.off("error", reject);
        server.on("error", () => undefined);
        resolve({
          close: () =>
            new Promise((closed) => {
              server.close(() => closed());
              for (const socket of sockets) socket.resetAndDestroy();
            }),
        });
      },
    );
  });
}

function forwardUdp(request: ForwardRequest): Promise<Forward> {
  const { host, port, target } = request;
  const front = createSocket({
    type: isIPv6(host) ? "udp6" : "udp4",
    ipv6Only: isIPv6(host),
  });
  const clients = new Map<string, { socket: Udp; timer: NodeJS.Timeout }>();
  const open = (key: string, from: RemoteInfo): Udp => {
    const socket = createSocket(isIPv6(target.host) ? "udp6" : "udp4");
    const end = () => {
      clearTimeout(timer);
      if (clients.delete(key)) socket.close();
    };
    const timer = setTimeout(end, UDP_IDLE);
    clients.set(key, { socket, timer });
    // Nobody listens there: the client's next datagram tries again.
    socket.on("error", end);
    socket.on("message", (answer) => {
      timer.refresh();
      front.send(answer, from.port, from.address, () => undefined);
    });
    // Connected: the kernel passes on what comes from the container only.
    socket.connect(target.port, target.host);
    return socket;
  };
  front.on("message", (message, from) => {
    const key = `${from.address} ${from.port}`;
    const known = clients.get(key);
    known?.timer.refresh();
    if (!known && clients.size >= MAX_UDP_CLIENTS) return;
    const socket = known?.socket ?? open(key, from);
    const send = () => socket.send(message, () => undefined);
    if (known) send();
    else socket.once("connect", send);
  });
  return new Promise((resolve, reject) => {
    front.once("error", (error) => {
      front.close();
      reject(error);
    });
    front.bind({ address: host, port, exclusive: true }, () => {
      front.removeAllListeners("error").on("error", () => undefined);
      resolve({
        close: () =>
          new Promise((closed) => {
            front.close(() => closed());
            for (const { socket, timer } of clients.values()) {
              clearTimeout(timer);
              socket.close();
            }
            clients.clear();
          }),
      });
    });
  });
}
