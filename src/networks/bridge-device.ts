/** A Linux bridge. */
import { readFile, writeFile } from "node:fs/promises";
import type { Logger } from "pino";
import { Unavailable } from "../errors.js";
import { runTool } from "./command.js";
import { hasIPv6, readLinks } from "./links.js";

const FORWARDING = {
  inet: "/proc/sys/net/ipv4/ip_forward",
  inet6: "/proc/sys/net/ipv6/conf/all/forwarding",
};

export interface BridgeSettings {
  /** Name of the Linux bridge. */
  name: string;
  /** ID of the network it carries; marks the bridge as this daemon's. */
  networkId: string;
  /** The host's addresses on it, with prefix length. */
  addresses: string[];
  mac: string;
  mtu: number;
  /** Nothing is forwarded from it or to it. */
  internal: boolean;
}

/**
 * Makes a bridge what the settings say, whether or not it is there already; taps on it stay.
 * @throws {Unavailable} the name belongs to something else
 * @throws {SystemError} the kernel refused, in its words
 */
export async function bridgeUp(
  settings: BridgeSettings,
  log: Logger,
): Promise<void> {
  const { name, networkId, addresses, mac, mtu } = settings;
  const noLinkLocal = (await hasIPv6()) ? "addrgenmode none" : "";
  const alias = `hull:${networkId}`;
  const links = await readLinks();
  const bridge = links.find((link) => link.ifname === name);
  if (bridge && bridge.linkinfo?.info_kind !== "bridge") {
    throw new Unavailable(
      `cannot make the bridge ${name}: there is another network device of that name`,
    );
  }
  if (
    bridge &&
    bridge.ifalias !== alias &&
    links.some((link) => link.master === name)
  ) {
    throw new Unavailable(
      `the bridge ${name} is in use and not this daemon's: ${bridge.ifalias ?? "no alias"}`,
    );
  }
  const stale = (bridge?.addr_info ?? [])
    .filter((info) => info.scope !== "link")
    .map((info) => `${info.local}/${info.prefixlen}`)
    .filter((text) => !addresses.includes(text));
  await runTool(
    "ip",
    ["-batch", "-"],
    [
      ...(bridge ? [] : [`link add name ${name} type bridge`]),
      // A bridge without an address of its own changes it with its ports, and confuses its guests.
      `link set dev ${name} address ${mac} mtu ${mtu} alias ${alias} ${noLinkLocal} up`,
      ...stale.map((text) => `addr del ${text} dev ${name}`),
      // Nobody else can have them: no guest's answer to duplicate detection would get through.
      ...addresses.map((text) =>
        text.includes(":")
          ? `addr replace ${text} dev ${name} nodad`
          : `addr replace ${text} dev ${name}`,
      ),
      "",
    ].join("\n"),
  );
  if (settings.internal) return;
  await enableForwarding("inet", log);
  if (addresses.some((text) => text.includes(":"))) {
    await enableForwarding("inet6", log);
  }
}

/**
 * Deletes a bridge of ours, if it is there.
 * @throws {SystemError} the kernel refused, in its words
 */
export async function bridgeDown(
  name: string,
  networkId: string,
): Promise<void> {
  const links = await readLinks();
  const bridge = links.find((link) => link.ifname === name);
  if (bridge?.ifalias === `hull:${networkId}`) {
    await runTool("ip", ["link", "del", "dev", name]);
  }
}

async function enableForwarding(
  family: "inet" | "inet6",
  log: Logger,
): Promise<void> {
  const path = FORWARDING[family];
  const [version, setting] =
    family === "inet"
      ? ["IPv4", "net.ipv4.ip_forward"]
      : ["IPv6", "net.ipv6.conf.all.forwarding"];
  try {
    if ((await readFile(path, "utf8")).trim() === "1") return;
    await writeFile(path, "1");
    log.info(`enabled ${version} forwarding (${setting}=1)`);
  } catch (error) {
    log.warn(
      { err: error },
      `cannot enable ${version} forwarding: containers reach the host and each other, but nothing else`,
    );
  }
}
