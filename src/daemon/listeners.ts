/** Opens everything the daemon listens on. */
import { readFileSync } from "node:fs";
import type { RequestListener } from "node:http";
import type { Server } from "node:net";
import type { TlsOptions } from "node:tls";
import type { Logger } from "pino";
import { type ApiServer, createApiServer } from "../engine-api/server.js";
import { SystemError } from "../errors.js";
import { type Config, ConfigError } from "./config.js";
import { type Host, parseHost } from "./hosts.js";
import { activatedSockets } from "./socket-activation.js";
import { listenUnix } from "./unix-socket.js";

/** Connections that are refused are told of again after so many ms. */
const TELL_AGAIN_MS = 60_000;

export class Listeners {
  readonly #servers: ApiServer[] = [];
  readonly #log: Logger;
  #toldRefused = -Infinity;

  constructor(log: Logger) {
    this.#log = log;
  }

  /**
   * Listens on every host of the configuration, or on none.
   * @throws {ConfigError} a host that cannot be, or TCP without TLS
   * @throws {SystemError} the host's refusal
   */
  async open(config: Config, api: RequestListener): Promise<void> {
    const tls = tlsOptions(config);
    const hosts = config.hosts.map((text) => parseHost(text, config.tlsverify));
    refusePlainTcp(hosts, config);
    try {
      for (const host of hosts) await this.#listen(host, config, api, tls);
    } catch (error) {
      await this.close(0);
      throw error;
    }
  }

  /**
   * Listens on `HOST:PORT` for nothing but metrics.
   * @throws {ConfigError} it is no address
   * @throws {SystemError} the host's refusal
   */
  async openMetrics(address: string, metrics: RequestListener): Promise<void> {
    const at = parseHost(`tcp://${address}`, false);
    if (at.kind !== "tcp") throw new ConfigError(`invalid address ${address}`);
    const { server } = this.#add(createApiServer(metrics));
    await listening(server, () => server.listen(at.port, at.host));
    const bound = server.address();
    const port = typeof bound === "object" ? bound?.port : undefined;
    this.#log.info(`metrics at http://${at.host}:${port ?? at.port}/metrics`);
  }

  /** Stops listening and ends what is served after `graceMs`. */
  async close(graceMs: number): Promise<void> {
    const servers = this.#servers.splice(0);
    await Promise.all(servers.map((server) => server.close(graceMs)));
  }

  async #listen(
    host: Host,
    config: Config,
    api: RequestListener,
    tls: TlsOptions | undefined,
  ): Promise<void> {
    const limits = {
      maxConnections: config["max-connections"],
      onRefused: () => this.#refused(config["max-connections"]),
    };
    if (host.kind === "unix") {
      const { server } = this.#add(createApiServer(api, limits));
      await listenUnix(server, host.path, config.group, this.#log);
      this.#log.info(`listening on unix://${host.path}`);
    } else if (host.kind === "tcp") {
      const { server } = this.#add(
        createApiServer(api, { ...limits, ...(tls && { tls }) }),
      );
      await listening(server, () => server.listen(host.port, host.host));
      const address = server.address();
      const port = typeof address === "object" ? address?.port : undefined;
      this.#log.info(
        `listening on tcp://${host.host}:${port ?? host.port}${tls ? " (TLS)" : ""}`,
      );
      if (tls === undefined) {
        this.#log.warn(
          `tcp://${host.host}:${port ?? host.port} has no TLS: whoever reaches it controls this host`,
        );
      }
    } else {
      for (const fd of activatedSockets(host.descriptor)) {
        const { server } = this.#add(createApiServer(api, limits));
        await listening(server, () => server.listen({ fd }));
        this.#log.info(`listening on the socket systemd passed as ${fd}`);
      }
    }
  }

  #refused(limit: number): void {
    const now = performance.now();
    if (now - this.#toldRefused < TELL_AGAIN_MS) return;
    this.#toldRefused = now;
    this.#log.warn(
      { limit },
      "too many connections: more are closed at once (max-connections)",
    );
  }

  #add(server: ApiServer): ApiServer {
    this.#servers.push(server);
    return server;
  }
}

async function listening(server: Server, listen: () => void): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const refused = (error: Error) =>
      reject(new SystemError(`cannot listen: ${error.message}`));
    server.once("error", refused);
    server.once("listening", () => {
      server.off("error", refused);
      resolve();
    });
    listen();
  });
}

function refusePlainTcp(hosts: Host[], config: Config): void {
  if (config.tlsverify || config["unsafe-plain-tcp"]) return;
  if (!hosts.some(({ kind }) => kind === "tcp")) return;
  throw new ConfigError(
    "TCP without TLS lets anyone who reaches the port control this host: use --tlsverify with --tlscacert, --tlscert and --tlskey (or --unsafe-plain-tcp, if that is what you want)",
  );
}

function tlsOptions(config: Config): TlsOptions | undefined {
  if (!config.tlsverify) return undefined;
  return {
    ca: read(config, "tlscacert"),
    cert: read(config, "tlscert"),
    key: read(config, "tlskey"),
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: "TLSv1.2",
  };
}

function read(
  config: Config,
  name: "tlscacert" | "tlscert" | "tlskey",
): Buffer {
  const file = config[name];
  try {
    return readFileSync(file ?? "");
  } catch (error) {
    throw new ConfigError(
      `invalid value for --${name}: ${(error as Error).message}`,
    );
  }
}
