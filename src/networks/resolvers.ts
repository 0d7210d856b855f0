/** Which resolvers containers are told. */
import { isIP } from "node:net";
import { InvalidParameter } from "../errors.js";
import type { Endpoint } from "./index.js";
import { hostResolvConf, type ResolvConf } from "./resolv-conf.js";

export interface ResolverSettings {
  /** Instead of the host's, where not empty. */
  dns: string[];
  dnsSearch: string[];
  dnsOptions: string[];
}

export class Resolvers {
  readonly #settings: ResolverSettings;
  readonly #host: () => Promise<ResolvConf>;

  /** @throws {InvalidParameter} a resolver is no IP address */
  constructor(
    settings: ResolverSettings,
    host: () => Promise<ResolvConf> = hostResolvConf,
  ) {
    const wrong = settings.dns.find((server) => isIP(server) === 0);
    if (wrong !== undefined) {
      throw new InvalidParameter(
        `invalid DNS server in the configuration: ${wrong} is not an IP address`,
      );
    }
    this.#settings = settings;
    this.#host = host;
  }

  /**
   * Reads the host's file afresh, because the host may have moved to another network.
   * @param nameserver the network's own resolver, told instead of the host's
   */
  async read(
    nameserver?: string,
  ): Promise<Pick<Endpoint, "nameservers" | "search" | "dnsOptions">> {
    const { dns, dnsSearch, dnsOptions } = this.#settings;
    const host = await this.#host();
    const fromHost = nameserver ? [nameserver] : host.nameservers;
    return {
      nameservers: dns.length > 0 ? dns : fromHost,
      search: dnsSearch.length > 0 ? dnsSearch : host.search,
      dnsOptions: dnsOptions.length > 0 ? dnsOptions : host.options,
    };
  }
}
