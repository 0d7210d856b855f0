/** A container's ports as the API shows them, and the filters of `docker ps` that ask for them. */
import { InvalidParameter } from "../errors.js";
import type { Filters } from "../filters.js";
import { namedPorts, portKey } from "./port-requests.js";
import type { ContainerRecord } from "./record.js";

/** NetworkSettings.Ports: every port that is exposed, with null where it is not published. */
export function portsView(record: ContainerRecord) {
  if (!isUp(record)) return {};
  return Object.fromEntries(
    namedPorts(record).map((name) => {
      const published = (record.ports ?? [])
        .filter((port) => portKey(port) === name)
        .map(({ hostIp, hostPort }) => ({
          HostIp: hostIp,
          HostPort: String(hostPort),
        }));
      return [name, published.length ? published : null];
    }),
  );
}

/** Ports of ContainerSummary. */
export function portsSummary(record: ContainerRecord) {
  if (!isUp(record)) return [];
  return namedPorts(record).flatMap((name) => {
    const [port, Type] = name.split("/");
    const PrivatePort = Number(port);
    const published = (record.ports ?? [])
      .filter((one) => portKey(one) === name)
      .map(({ hostIp, hostPort }) => ({
        IP: hostIp,
        PrivatePort,
        PublicPort: hostPort,
        Type,
      }));
    return published.length ? published : [{ PrivatePort, Type }];
  });
}

/**
 * The filters `expose` and `publish`: a port, or a range of them, with or without a protocol. As in
 * Docker a container needs to match one of the two only.
 * @throws {InvalidParameter} a value is no port
 */
export function portMatcher(
  filters: Filters,
): (record: ContainerRecord) => boolean {
  const exposed = filterPorts(filters, "expose");
  const published = filterPorts(filters, "publish");
  if (!filters.has("expose") && !filters.has("publish")) return () => true;
  return (record) =>
    namedPorts(record).some((name) => exposed.has(name)) ||
    (record.ports ?? []).some(({ hostPort, protocol }) =>
      published.has(portKey({ port: hostPort, protocol })),
    );
}

function filterPorts(
  filters: Filters,
  name: "expose" | "publish",
): Set<string> {
  const ports = new Set<string>();
  for (const value of filters.get(name)) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/.exec(value);
    const first = Number(match?.[1]);
    const last = Number(match?.[2] ?? match?.[1]);
    if (!match || first > last || last > 65535) {
      throw new InvalidParameter(`invalid filter '${name}=${value}'`);
    }
    for (let port = first; port <= last; port++) {
      ports.add(`${port}/${match[3] ?? "tcp"}`);
    }
  }
  return ports;
}

function isUp({ state }: ContainerRecord): boolean {
  return state.status === "running" || state.status === "paused";
}
