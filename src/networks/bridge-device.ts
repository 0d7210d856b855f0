/** The Linux bridge and the tap devices plugged into it. */
import { access, readFile, writeFile } from "node:fs/promises";
import type { Logger } from "pino";
import { z } from "zod";
import { SystemError, Unavailable } from "../errors.js";
import { runTool } from "./command.js";
import { IpBatch } from "./ip-batch.js";

/** Taps begin with it; so does nothing else on a bridge of ours. */
const TAP_PREFIX = "hl";
/** Taps to be deleted are put in this group ("hull" in ASCII) and go at once, for the price of one. */
const DOOMED_GROUP = 0x68756c6c;
const IP_FORWARD = "/proc/sys/net/ipv4/ip_forward";

export interface BridgeSettings {
  /** Name of the Linux bridge. */
  name: string;
  /** ID of the network it carries; marks the bridge and the taps as this daemon's. */
  networkId: string;
  /** The host's address on it, with prefix length. */
  address: string;
  mac: string;
  mtu: number;
}

const linkSchema = z.object({
  ifname: z.string(),
  ifalias: z.string().optional(),
  master: z.string().optional(),
  linkinfo: z.object({ info_kind: z.string().optional() }).optional(),
  addr_info: z
    .array(
      z.object({
        family: z.string(),
        local: z.string().optional(),
        prefixlen: z.number(),
      }),
    )
    .default([]),
});
type Link = z.infer<typeof linkSchema>;

export class BridgeDevice {
  readonly #settings: BridgeSettings;
  readonly #log: Logger;
  readonly #batch = new IpBatch();
  /** Deleting a link waits some 15 ms for the kernel; nobody is to wait for it. */
  readonly #deletions = new IpBatch();
  readonly #doomed = new Set<string>();
  #deleting: { devices: Set<string>; done: Promise<void> } | undefined;
  #noLinkLocal = "";

  constructor(settings: BridgeSettings, log: Logger) {
    this.#settings = settings;
    this.#log = log;
  }

  /**
   * Makes the bridge what the settings say, whether or not it is there already; taps on it stay.
   * @throws {Unavailable} the name belongs to something else
   * @throws {SystemError} the kernel refused, in its words
   */
  async up(): Promise<void> {
    const { name, networkId, address, mac, mtu } = this.#settings;
    // Ports of a bridge need no address of their own, and no IPv6 chatter on each start.
    this.#noLinkLocal = (await exists("/proc/sys/net/ipv6"))
      ? "addrgenmode none"
      : "";
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
      .filter((info) => info.family === "inet")
      .map((info) => `${info.local}/${info.prefixlen}`)
      .filter((text) => text !== address);
    await this.#batch.run([
      ...(bridge ? [] : [`link add name ${name} type bridge`]),
      // A bridge without an address of its own changes it with its ports, and confuses its guests.
      `link set dev ${name} address ${mac} mtu ${mtu} alias ${alias} ${this.#noLinkLocal} up`,
      ...stale.map((text) => `addr del ${text} dev ${name}`),
      `addr replace ${address} dev ${name}`,
    ]);
    await this.#enableForwarding();
  }

  /**
   * The name of a container's tap. The network's ID in it tells this daemon's taps from another's even
   * before they are on the bridge; the kernel takes 15 characters.
   */
  tapName(containerId: string): string {
    return `${TAP_PREFIX}${this.#settings.networkId.slice(0, 3)}${containerId.slice(0, 10)}`;
  }

  /**
   * Makes a tap on the bridge, for one machine at a time to open by its name.
   * @param made it is there already, see addSpareTap
   * @throws {SystemError} the kernel refused, in its words
   */
  async addTap(device: string, made = false): Promise<void> {
    if (this.#deleting?.devices.has(device)) {
      await this.#deleting.done;
    }
    // A tap that still waits for its deletion need not be made again.
    const present = this.#doomed.delete(device) || made;
    const { name, mtu } = this.#settings;
    try {
      await this.#batch.run([
        ...(present ? [] : [`tuntap add dev ${device} mode tap`]),
        `link set dev ${device} master ${name} mtu ${mtu} group default ${this.#noLinkLocal} up`,
      ]);
    } catch (error) {
      if (!made) this.removeTap(device);
      throw error;
    }
  }

  /**
   * Makes a tap that is on no bridge, and down: were it up, the host would answer on it.
   * @throws {SystemError} the kernel refused, in its words
   */
  async addSpareTap(device: string): Promise<void> {
    try {
      await this.#batch.run([
        `tuntap add dev ${device} mode tap`,
        `link set dev ${device} mtu ${this.#settings.mtu} ${this.#noLinkLocal} down`,
      ]);
    } catch (error) {
      this.removeTap(device);
      throw error;
    }
  }

  /** Deletes a tap in the background; that it is gone already is no matter. */
  removeTap(device: string): void {
    this.#doomed.add(device);
    this.#deleting ??= this.#delete();
  }

  /**
   * Deletes the taps of this daemon that are not among the ones to keep, in the background.
   * @param keep asked once the devices have been listed, since taps may be made meanwhile
   */
  async removeOtherTaps(keep: () => ReadonlySet<string>): Promise<void> {
    const { name, networkId } = this.#settings;
    const own = `${TAP_PREFIX}${networkId.slice(0, 3)}`;
    const links = await readLinks();
    const kept = keep();
    for (const link of links) {
      const ours =
        link.linkinfo?.info_kind === "tun" &&
        (link.ifname.startsWith(own) ||
          (link.master === name && link.ifname.startsWith(TAP_PREFIX)));
      if (ours && !kept.has(link.ifname)) {
        this.#log.info({ device: link.ifname }, "removing an orphan tap");
        this.removeTap(link.ifname);
      }
    }
  }

  /** Waits for deletions under way and ends the helper processes. Bridge and taps stay. */
  async close(): Promise<void> {
    await this.#deleting?.done;
    await Promise.all([this.#batch.close(), this.#deletions.close()]);
  }

  #delete(): { devices: Set<string>; done: Promise<void> } {
    const devices = new Set<string>();
    const done = (async () => {
      // Taps doomed in the same turn of the event loop go together.
      await Promise.resolve();
      while (this.#doomed.size > 0) {
        const batch = [...this.#doomed];
        this.#doomed.clear();
        batch.forEach((device) => devices.add(device));
        await this.#deleteNow(batch);
        devices.clear();
      }
    })()
      .catch((error: unknown) => {
        this.#log.warn({ err: error }, "cannot remove tap devices");
      })
      .finally(() => {
        this.#deleting = undefined;
      });
    return { devices, done };
  }

  async #deleteNow(devices: string[]): Promise<void> {
    try {
      await this.#deletions.run([
        ...devices.map(
          (device) => `link set dev ${device} group ${DOOMED_GROUP}`,
        ),
        `link del group ${DOOMED_GROUP}`,
      ]);
    } catch (error) {
      if (!String(error).includes("Cannot find device")) {
        throw error;
      }
    }
  }

  async #enableForwarding(): Promise<void> {
    if ((await readFile(IP_FORWARD, "utf8")).trim() === "1") {
      return;
    }
    try {
      await writeFile(IP_FORWARD, "1");
      this.#log.info("enabled IPv4 forwarding (net.ipv4.ip_forward=1)");
    } catch (error) {
      this.#log.warn(
        { err: error },
        "cannot enable IPv4 forwarding: containers reach the host and each other, but nothing else",
      );
    }
  }
}

async function readLinks(): Promise<Link[]> {
  const output = await runTool("ip", ["-details", "-json", "address"]);
  const parsed = z.array(linkSchema).safeParse(JSON.parse(output || "[]"));
  if (!parsed.success) {
    throw new SystemError(
      `cannot read the output of ip -json address: ${z.prettifyError(parsed.error)}`,
    );
  }
  return parsed.data;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
