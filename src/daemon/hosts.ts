/** Where the daemon listens, as users write it. */
import { ConfigError } from "./config.js";

export type Host =
  | { kind: "unix"; path: string }
  | { kind: "tcp"; host: string; port: number }
  /** Sockets handed over by systemd; all of them, or the one with this number. */
  | { kind: "fd"; descriptor: number | undefined };

/**
 * Reads `unix:///PATH`, `/PATH`, `tcp://HOST:PORT`, `fd://` or `fd://N`.
 * @param tls decides the port where none is given: 2376, or 2375 without TLS
 * @throws {ConfigError} it is none of these
 */
export function parseHost(text: string, tls: boolean): Host {
  if (text.startsWith("/")) return { kind: "unix", path: text };
  const [, scheme, rest = ""] = /^(\w+):\/\/(.*)$/.exec(text) ?? [];
  if (scheme === "unix" && rest.startsWith("/")) {
    return { kind: "unix", path: rest };
  }
  if (scheme === "fd" && /^(\d*|\*)$/.test(rest)) {
    return {
      kind: "fd",
      descriptor: /^\d+$/.test(rest) ? Number(rest) : undefined,
    };
  }
  const address = /^(\[[0-9a-f:.]+\]|[^:/[\]]*)(?::(\d{1,5}))?\/?$/i.exec(rest);
  if (scheme === "tcp" && address !== null) {
    const port = Number(address[2] ?? (tls ? 2376 : 2375));
    const host = (address[1] ?? "").replace(/^\[|\]$/g, "") || "127.0.0.1";
    if (port <= 65535) return { kind: "tcp", host, port };
  }
  throw new ConfigError(
    `invalid host ${JSON.stringify(text)}: expected unix:///PATH, tcp://HOST:PORT or fd://`,
  );
}
