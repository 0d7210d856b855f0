/** The tap devices of a daemon: made, plugged into bridges, unplugged, deleted. */
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Logger } from "pino";
import { IpBatch } from "./ip-batch.js";
import { hasIPv6, readLinks } from "./links.js";

/** Taps begin with it; so does nothing else on a bridge of ours. */
const PREFIX = "hl";
/** Taps to be deleted are put in this group ("hull" in ASCII) and go at once, for the price of one. */
const DOOMED_GROUP = 0x68756c6c;

/** What a tap is plugged into. */
export interface Socket {
  bridge: string;
  mtu: number;
  /** It reaches the host, and none of its neighbours on the bridge. */
  isolated: boolean;
}

export class Taps {
  readonly #tag: string;
  readonly #log: Logger;
  readonly #batch = new IpBatch();
  /** Deleting a link waits some 15 ms for the kernel; nobody is to wait for it. */
  readonly #deletions = new IpBatch();
  readonly #doomed = new Set<string>();
  #deleting: { devices: Set<string>; done: Promise<void> } | undefined;

  /** @param daemonId hex digits that tell this daemon's taps from those of others on the host */
  constructor(daemonId: string, log: Logger) {
    this.#tag = daemonId.slice(0, 5);
    this.#log = log;
  }

  /** What the names of all taps of this daemon begin with. */
  get prefix(): string {
    return `${PREFIX}${this.#tag}`;
  }

  /** The name of a container's tap on the network it is usually on; the kernel takes 15 characters. */
  nameFor(containerId: string, networkId?: string): string {
    const digits =
      networkId === undefined
        ? containerId
        : createHash("sha256")
            .update(containerId + networkId)
            .digest("hex");
    return `${this.prefix}${digits.slice(0, 8)}`;
  }

  /**
   * Makes a tap, unless it is there, and plugs it in, for one machine at a time to open by its name.
   * @param made it is there already, see `create`
   * @throws {SystemError} the kernel refused, in its words
   */
  async plug(device: string, socket: Socket, made: boolean): Promise<void> {
    if (this.#deleting?.devices.has(device)) {
      await this.#deleting.done;
    }
    // A tap that still waits for its deletion need not be made again.
    const present = this.#doomed.delete(device) || made;
    const { bridge, mtu, isolated } = socket;
    const slave = [
      ...(isolated ? ["isolated on"] : []),
      ...(bridgeFilter() ? ["hairpin on"] : []),
    ];
    try {
      await this.#batch.run([
        ...(present ? [] : [`tuntap add dev ${device} mode tap`]),
        `link set dev ${device} master ${bridge} mtu ${mtu} group default ${await quiet()} up`,
        ...(slave.length > 0
          ? [`link set dev ${device} type bridge_slave ${slave.join(" ")}`]
          : []),
      ]);
    } catch (error) {
      if (!made) this.remove(device);
      throw error;
    }
  }

  /**
   * Takes a tap off its bridge; the machine keeps it.
   * @throws {SystemError} the kernel refused, in its words
   */
  async unplug(device: string): Promise<void> {
    await this.#batch.run([`link set dev ${device} down nomaster`]);
  }

  /**
   * Makes a tap that is on no bridge, and down: were it up, the host would answer on it.
   * @throws {SystemError} the kernel refused, in its words
   */
  async create(): Promise<string> {
    const device = `${this.prefix}${randomBytes(4).toString("hex")}`;
    try {
      await this.#batch.run([
        `tuntap add dev ${device} mode tap`,
        `link set dev ${device} ${await quiet()} down`,
      ]);
    } catch (error) {
      this.remove(device);
      throw error;
    }
    return device;
  }

  /** Deletes a tap in the background; that it is gone already is no matter. */
  remove(device: string): void {
    this.#doomed.add(device);
    this.#deleting ??= this.#delete();
  }

  /**
   * Deletes the taps of this daemon that are not among the ones to keep, in the background.
   * @param keep asked once the devices have been listed, since taps may be made meanwhile
   */
  async removeOthers(keep: () => ReadonlySet<string>): Promise<void> {
    const links = await readLinks();
    const kept = keep();
    for (const { ifname, linkinfo } of links) {
      const ours =
        linkinfo?.info_kind === "tun" && ifname.startsWith(this.prefix);
      if (ours && !kept.has(ifname)) {
        this.#log.info({ device: ifname }, "removing an orphan tap");
        this.remove(ifname);
      }
    }
  }

  /** Waits for deletions under way and ends the helper processes. Taps stay. */
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
}

/** Ports of a bridge need no address of their own, and no IPv6 chatter on each start. */
async function quiet(): Promise<string> {
  return (await hasIPv6()) ? "addrgenmode none" : "";
}

/**
 * Whether the host's packet filter sees what bridges pass on. It then rewrites a container's packet to its
 * own published port on the bridge, which sends nothing back where it came from unless told to. May be switched at
 * any time, and is read from the kernel's memory: other threads would only take longer.
 */
function bridgeFilter(): boolean {
  try {
    const file = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    return readFileSync(file, "utf8").trim() === "1";
  } catch {
    // The filter is not loaded.
    return false;
  }
}
