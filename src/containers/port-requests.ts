/**
 * The ports a container asks for: ExposedPorts, PortBindings and PublishAllPorts of the Engine API,
 * checked and put together as Docker does (docker/go-connections nat, moby daemon/container.go).
 */
import { isIP } from "node:net";
import { InvalidParameter, NotImplemented } from "../errors.js";
import type { PortProtocol, PortRequest } from "../networks/index.js";
import type { CreateRequest, HostConfig } from "./create-request.js";
import type { ContainerRecord } from "./record.js";

const MAX_PORT = 65535;

/** A port in a container, e.g. "80/tcp". */
export interface ContainerPort {
  port: number;
  protocol: PortProtocol;
}

/**
 * Checks what a user gave.
 * @throws {InvalidParameter} a port, a range or an address that cannot be
 * @throws {NotImplemented} a protocol that hull does not forward
 */
export function checkPorts(request: CreateRequest): void {
  for (const exposed of Object.keys(request.ExposedPorts ?? {})) {
    parseContainerPort(exposed);
  }
  bindingsOf(request.HostConfig ?? {});
}

/** The ports to publish when a container starts. */
export function portRequests(record: ContainerRecord): PortRequest[] {
  const { config, hostConfig } = record;
  const requests = bindingsOf(hostConfig);
  if (!hostConfig.PublishAllPorts) return requests;
  const bound = new Set(requests.map(portKey));
  const others = exposedPorts(config.ExposedPorts)
    .filter((exposed) => !bound.has(portKey(exposed)))
    .map((exposed) => ({
      ...exposed,
      hostIp: "",
      hostPorts: { first: 0, last: 0 },
    }));
  return [...requests, ...others];
}

/** Every port a container names, published or not, once and in Docker's form: "80/tcp". */
export function namedPorts(record: ContainerRecord): string[] {
  const names = [
    ...exposedPorts(record.config.ExposedPorts),
    ...Object.keys(record.hostConfig.PortBindings ?? {}).flatMap(
      parseContainerPort,
    ),
  ].map(portKey);
  return [...new Set(names)].sort(
    (a, b) => parseInt(a) - parseInt(b) || a.localeCompare(b),
  );
}

export function portKey(port: ContainerPort): string {
  return `${port.port}/${port.protocol}`;
}

function exposedPorts(
  exposed: Record<string, object> | undefined,
): ContainerPort[] {
  return Object.keys(exposed ?? {}).flatMap(parseContainerPort);
}

function bindingsOf(host: HostConfig): PortRequest[] {
  return Object.entries(host.PortBindings ?? {}).flatMap(([name, bindings]) => {
    const [port, ...more] = parseContainerPort(name);
    if (!port || more.length) throw invalidPort(name);
    return (bindings ?? []).map(({ HostIp, HostPort }) => {
      const hostIp = HostIp ?? "";
      if (hostIp && !isIP(hostIp)) {
        throw new InvalidParameter(`invalid IP address: ${hostIp}`);
      }
      return { ...port, hostIp, hostPorts: parseHostPorts(HostPort ?? "") };
    });
  });
}

/**
 * "80", "80/udp", or a range of a Dockerfile's EXPOSE, "8000-8010/tcp".
 * @throws {InvalidParameter} it is none of these
 * @throws {NotImplemented} the protocol is SCTP
 */
function parseContainerPort(text: string): ContainerPort[] {
  const [range = "", protocol = "tcp", ...rest] = text.split("/");
  const name = protocol.toLowerCase() || "tcp";
  const ports = parseRange(range);
  if (!ports || ports.first === 0 || rest.length) throw invalidPort(range);
  if (name === "sctp") {
    throw new NotImplemented(
      `hull does not support the protocol sctp (port ${text}) yet`,
    );
  }
  if (name !== "tcp" && name !== "udp") {
    throw new InvalidParameter(`invalid proto: ${protocol}`);
  }
  const { first, last } = ports;
  return Array.from({ length: last - first + 1 }, (_, step) => ({
    port: first + step,
    protocol: name,
  }));
}

/** A port of the host, a range of them to choose from, or "" for one the daemon chooses. */
function parseHostPorts(text: string): PortRequest["hostPorts"] {
  if (text === "") return { first: 0, last: 0 };
  const ports = parseRange(text);
  if (!ports) throw invalidPort(text);
  return ports;
}

function parseRange(text: string): PortRequest["hostPorts"] | undefined {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (!match) return undefined;
  const first = Number(match[1]);
  const last = Number(match[2] ?? match[1]);
  return first <= last && last <= MAX_PORT ? { first, last } : undefined;
}

function invalidPort(text: string): InvalidParameter {
  return new InvalidParameter(`invalid port specification: "${text}"`);
}
