/** Resolvers for containers, from the host's /etc/resolv.conf. */
import { readFileSync } from "node:fs";
import { BlockList, isIP } from "node:net";

/** What resolv.conf(5) says, or what a container's copy of it is to say. */
export interface ResolvConf {
  nameservers: string[];
  search: string[];
  options: string[];
}

/** Docker's resolvers for hosts that have none a container could reach. */
const FALLBACK_NAMESERVERS = ["8.8.8.8", "8.8.4.4"];
/** What systemd-resolved really asks, on hosts whose resolv.conf names its stub. */
const RESOLVED_PATH = "/run/systemd/resolve/resolv.conf";
const RESOLVED_STUB = "127.0.0.53";

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8);

/** Reads resolv.conf(5) text. Unknown lines are skipped, as the resolver itself does. */
export function parseResolvConf(text: string): ResolvConf {
  const conf: ResolvConf = { nameservers: [], search: [], options: [] };
  for (const line of text.split("\n")) {
    const [keyword, ...values] = line
      .replace(/[#;].*/, "")
      .split(/\s+/)
      .filter(Boolean);
    if (keyword === "nameserver" && values[0] && isIP(values[0])) {
      conf.nameservers.push(values[0]);
    } else if (keyword === "search" || keyword === "domain") {
      // The last instance wins; a search for "." alone means none.
      conf.search = values.filter((domain) => domain !== ".");
    } else if (keyword === "options") {
      conf.options.push(...values);
    }
  }
  return conf;
}

/** The resolvers a container with IPv4 only can reach: no loopback, which would be its own, no IPv6. */
export function reachable(nameservers: readonly string[]): string[] {
  return nameservers.filter(
    (server) => isIP(server) === 4 && !loopback.check(server),
  );
}

/**
 * The host's resolvers as Docker hands them on: without loopback ones, systemd-resolved's upstreams in
 * place of its stub, and 8.8.8.8 and 8.8.4.4 when nothing is left. A file that is missing counts as
 * empty.
 */
export function hostResolvConf(
  path = "/etc/resolv.conf",
  resolvedPath = RESOLVED_PATH,
): ResolvConf {
  let conf = parseResolvConf(readOrEmpty(path));
  if (
    conf.nameservers.length > 0 &&
    conf.nameservers.every((server) => server === RESOLVED_STUB)
  ) {
    conf = parseResolvConf(readOrEmpty(resolvedPath));
  }
  const nameservers = reachable(conf.nameservers);
  return {
    ...conf,
    nameservers: nameservers.length > 0 ? nameservers : FALLBACK_NAMESERVERS,
  };
}

/** The servers the host itself asks, and Docker's where it has none. */
export function hostNameservers(path = "/etc/resolv.conf"): string[] {
  const { nameservers } = parseResolvConf(readOrEmpty(path));
  return nameservers.length > 0 ? nameservers : FALLBACK_NAMESERVERS;
}

/**
 * At once: each start waits for these few lines, which the kernel has at hand. By way of another thread, five times
 * there and back, they take milliseconds when the CPUs have a guest to run.
 */
function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
