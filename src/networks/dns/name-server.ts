/** Serves names at a network's gateway, over UDP and TCP. */
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { createServer, isIPv6, type Server, type Socket } from "node:net";
import type { Logger } from "pino";
import { Unavailable } from "../../errors.js";
import { canonical } from "../ip.js";
import type { Responder } from "./responder.js";
import { framed } from "./upstream.js";

const DEFAULT_PORT = 53;
/** TCP connections at once: of one client, and of all. */
const MAX_CONNECTIONS_OF_ONE = 16;
const MAX_CONNECTIONS = 256;
/** How long a TCP connection may be silent, in ms. */
const IDLE = 10_000;
/** Queries that one connection may have under way. */
const MAX_PIPELINED = 16;
/** What is tried again after a daemon before has let go of the port, in ms. */
const RETRY = 1000;

export interface NameServerOptions {
  /** The gateway's address, without prefix length. */
  address: string;
  /** 53 where absent; 0 for one the kernel chooses. */
  port?: number;
  responder: Responder;
  /** The container that has an address on the network. */
  clientOf: (address: string) => string | undefined;
  log: Logger;
}

export class NameServer {
  readonly #options: NameServerOptions;
  #udp: UdpSocket | undefined;
  #tcp: Server | undefined;
  readonly #connections = new Map<Socket, string>();
  #retry: NodeJS.Timeout | undefined;
  #closed = false;
  #port: number;

  constructor(options: NameServerOptions) {
    this.#options = options;
    this.#port = options.port ?? DEFAULT_PORT;
  }

  /** Where it serves. */
  get port(): number {
    return this.#port;
  }

  /** @throws {Unavailable} another program has the port */
  async open(): Promise<void> {
    const { address } = this.#options;
    try {
      this.#udp = await this.#openUdp();
      this.#tcp = await this.#openTcp();
    } catch (error) {
      this.#letGo();
      throw new Unavailable(
        `cannot serve names at ${address}, port ${this.#port}: ${(error as Error).message}`,
        { cause: error },
      );
    }
  }

  /** As `open`, again and again until it works: for a network that is there already. */
  async openInTheEnd(): Promise<void> {
    try {
      await this.open();
    } catch (error) {
      this.#options.log.error({ err: error }, "trying again");
      if (this.#closed) return;
      this.#retry = setTimeout(() => void this.openInTheEnd(), RETRY * 5);
      this.#retry.unref();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#letGo();
    await Promise.resolve();
  }

  #letGo(): void {
    this.#udp?.close();
    this.#udp = undefined;
    this.#tcp?.close();
    this.#tcp = undefined;
    for (const connection of this.#connections.keys()) connection.destroy();
  }

  #openUdp(): Promise<UdpSocket> {
    const { address, responder, log } = this.#options;
    return new Promise((resolve, reject) => {
      const socket = createSocket(isIPv6(address) ? "udp6" : "udp4");
      socket.once("error", reject);
      socket.bind({ address, port: this.#port, exclusive: true }, () => {
        this.#port = socket.address().port;
        socket.off("error", reject);
        socket.on("error", (error) => {
          log.warn({ err: error, address }, "name service");
        });
        resolve(socket);
      });
      socket.on("message", (message, from) => {
        const client = this.#clientOf(from.address);
        responder.answer(message, client, "udp").then(
          (answer) => {
            if (!answer || this.#udp !== socket) return;
            socket.send(answer, from.port, from.address, () => undefined);
          },
          (error: unknown) => log.warn({ err: error }, "name service"),
        );
      });
    });
  }

  #openTcp(): Promise<Server> {
    const { address } = this.#options;
    return new Promise((resolve, reject) => {
      const server = createServer((connection) => this.#serve(connection));
      server.once("error", reject);
      server.listen(
        { host: address, port: this.#port, exclusive: true },
        () => {
          server.off("error", reject);
          server.on("error", () => undefined);
          resolve(server);
        },
      );
    });
  }

  #serve(connection: Socket): void {
    const from = connection.remoteAddress ?? "";
    const ofOne = [...this.#connections.values()].filter(
      (address) => address === from,
    );
    connection.on("error", () => undefined);
    if (
      ofOne.length >= MAX_CONNECTIONS_OF_ONE ||
      this.#connections.size >= MAX_CONNECTIONS
    ) {
      connection.destroy();
      return;
    }
    this.#connections.set(connection, from);
    connection.on("close", () => this.#connections.delete(connection));
    connection.setTimeout(IDLE, () => connection.destroy());
    const client = this.#clientOf(from);
    let received = Buffer.alloc(0);
    let underWay = 0;
    const next = () => {
      while (received.length >= 2 && underWay < MAX_PIPELINED) {
        const length = received.readUInt16BE(0);
        if (received.length < 2 + length) break;
        const message = received.subarray(2, 2 + length);
        received = received.subarray(2 + length);
        underWay++;
        void this.#options.responder
          .answer(message, client, "tcp")
          .then((answer) => {
            if (answer) connection.write(framed(answer));
            else connection.destroy();
          })
          .catch(() => connection.destroy())
          .finally(() => {
            underWay--;
            next();
          });
      }
      if (underWay >= MAX_PIPELINED) connection.pause();
      else connection.resume();
    };
    connection.on("data", (chunk) => {
      received = Buffer.concat([received, chunk]);
      next();
    });
  }

  #clientOf(address: string): string | undefined {
    try {
      return this.#options.clientOf(canonical(address));
    } catch {
      return undefined;
    }
  }
}
