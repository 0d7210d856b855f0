/** The engine's files about names: /etc/hosts, /etc/resolv.conf, /etc/hostname. */
import type { FileSetup } from "../../protocol/index.js";
import { InvalidParameter } from "../errors.js";
import type { ContainerRecord } from "./record.js";

const HOSTNAME = "/etc/hostname";
const HOSTS = "/etc/hosts";
const RESOLVER = "/etc/resolv.conf";
/** Their places in a container. */
export const ENGINE_FILES = [HOSTNAME, HOSTS, RESOLVER];

/** What of them depends on the networks a container is on. */
export function networkFiles(record: ContainerRecord): FileSetup[] {
  return [
    { path: HOSTS, content: hostsFile(record), mode: 0o644 },
    { path: RESOLVER, content: resolverFile(record), mode: 0o644 },
  ];
}

export function hostnameFile({ config }: ContainerRecord): FileSetup {
  const content = `${config.Hostname}\n`;
  return { path: HOSTNAME, content, mode: 0o644 };
}

function hostsFile(record: ContainerRecord): string {
  const { config, hostConfig: host } = record;
  const lines = [
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
  ];
  for (const entry of host.ExtraHosts ?? []) {
    const { name, address } = parseExtraHost(entry, record);
    lines.push(`${address}\t${name}`);
  }
  const names = config.Domainname
    ? `${config.Hostname}.${config.Domainname} ${config.Hostname}`
    : config.Hostname;
  for (const { ipAddress, ipv6Address } of record.endpoints) {
    for (const address of [ipAddress, ipv6Address]) {
      if (address) lines.push(`${address}\t${names}`);
    }
  }
  return lines.join("\n") + "\n";
}

/**
 * One --add-host entry: "name:address" or "name=address"; "host-gateway" is the host's address on the
 * first network.
 * @throws {InvalidParameter} with Docker's words
 */
export function parseExtraHost(
  entry: string,
  record?: ContainerRecord,
): { name: string; address: string } {
  const match = /^([^:=]+)[:=](.+)$/.exec(entry);
  if (!match?.[1] || !match[2]) {
    throw new InvalidParameter(`bad format for add-host: "${entry}"`);
  }
  const address =
    match[2] === "host-gateway"
      ? hostAddress(record)
      : match[2].replace(/^\[(.*)\]$/, "$1");
  return { name: match[1], address };
}

function hostAddress(record: ContainerRecord | undefined): string {
  const gateways = (record?.endpoints ?? []).flatMap(
    ({ gateway, ipv6Gateway }) => [gateway, ipv6Gateway],
  );
  return gateways.find(Boolean) ?? "127.0.0.1";
}

/**
 * On networks that users made it names hull's name service, which passes other questions on to the
 * resolvers of --dns or of the host; otherwise it names these resolvers.
 */
function resolverFile(record: ContainerRecord): string {
  const { hostConfig: host, endpoints } = record;
  const serving = endpoints.filter(({ named }) => named);
  const told = (serving.length > 0 ? serving : endpoints).flatMap(
    ({ nameservers }) => nameservers,
  );
  const servers =
    serving.length === 0 && host.Dns?.length ? host.Dns : [...new Set(told)];
  const search = host.DnsSearch?.length
    ? host.DnsSearch.filter((domain) => domain !== ".")
    : [...new Set(endpoints.flatMap((endpoint) => endpoint.search))];
  const options = host.DnsOptions?.length
    ? host.DnsOptions
    : [...new Set(endpoints.flatMap((endpoint) => endpoint.dnsOptions))];
  // As Docker's: names without a dot are the network's, and not to be tried with a domain first.
  if (serving.length > 0 && !options.some((one) => /^ndots:/.test(one))) {
    options.push("ndots:0");
  }
  const lines = servers.map((server) => `nameserver ${server}`);
  if (search.length) lines.push(`search ${search.join(" ")}`);
  if (options.length) lines.push(`options ${options.join(" ")}`);
  return lines.map((line) => line + "\n").join("");
}
