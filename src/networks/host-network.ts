/** What all bridges of a daemon share: taps, rules, names, resolvers. */
import type { Server } from "node:net";
import { join } from "node:path";
import type { Logger } from "pino";
import { SystemError, Unavailable } from "../errors.js";
import { claimBridge } from "./bridge-claim.js";
import { NameDirectory } from "./dns/name-directory.js";
import { Responder } from "./dns/responder.js";
import type { Firewall } from "./firewall.js";
import { GuestRules } from "./guest-rules.js";
import { RecordFile, type NetworkRecord } from "./record.js";
import type { Resolvers } from "./resolvers.js";
import { Taps } from "./taps.js";

export interface HostNetworkOptions {
  /** Where the networks' records are kept. */
  directory: string;
  /** Name of the default bridge, and of the nftables tables. */
  bridge: string;
  resolvers: Resolvers;
  firewall: Firewall;
  log: Logger;
}

export class HostNetwork {
  readonly resolvers: Resolvers;
  readonly log: Logger;
  readonly taps: Taps;
  readonly firewall: Firewall;
  readonly guests: GuestRules;
  readonly names = new NameDirectory();
  readonly responder: Responder;
  /** Taps that are on no network, and those that are. */
  readonly spareTaps = new Set<string>();
  readonly pluggedTaps = new Set<string>();
  /** Resolvers of their own that containers brought, by container ID. */
  readonly dns = new Map<string, string[]>();
  readonly #claim: Server;

  /**
   * @param record of the default network, whose ID tells this daemon's taps from others'
   * @throws {Unavailable} another daemon has the bridge
   */
  static async open(
    options: HostNetworkOptions,
    record: NetworkRecord,
  ): Promise<HostNetwork> {
    const claim = await claimBridge(options.bridge);
    const host = new HostNetwork(options, record, claim);
    try {
      await host.guests.open();
    } catch (error) {
      await host.close();
      throw error;
    }
    return host;
  }

  private constructor(
    { bridge, resolvers, firewall, log }: HostNetworkOptions,
    record: NetworkRecord,
    claim: Server,
  ) {
    this.resolvers = resolvers;
    this.log = log;
    this.#claim = claim;
    this.taps = new Taps(record.id, log);
    this.firewall = firewall;
    firewall.rules.taps = this.taps.prefix;
    this.guests = new GuestRules(bridge, this.taps.prefix, firewall.nft);
    this.responder = new Responder({
      names: this.names,
      upstreams: async (containerId) =>
        this.names.reachesOutside(containerId)
          ? (this.dns.get(containerId) ?? resolvers.upstreams())
          : [],
    });
  }

  /** @throws {Unavailable} the host refused */
  async createTap(): Promise<string> {
    try {
      const device = await this.taps.create();
      this.spareTaps.add(device);
      return device;
    } catch (error) {
      throw refusal(error);
    }
  }

  /** Does nothing to one that is on a network, which `detach` removes, or that is gone. */
  discardTap(device: string): void {
    const spare = this.spareTaps.delete(device);
    if (spare && !this.pluggedTaps.has(device)) this.taps.remove(device);
  }

  /** Ends helper processes. Bridges, taps and rules stay. */
  async close(): Promise<void> {
    await Promise.all([this.taps.close(), this.firewall.close()]);
    this.#claim.close();
  }
}

/** The kernel's refusal, as the one who starts a container is to read it. */
export function refusal(error: unknown): unknown {
  return error instanceof SystemError
    ? new Unavailable(
        `failed to set up container networking: ${error.message}`,
        { cause: error },
      )
    : error;
}

export function recordFile(
  directory: string,
  name: string,
  log: Logger,
): RecordFile {
  return new RecordFile(join(directory, `${name}.json`), log);
}
