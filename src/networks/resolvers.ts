/** Which resolvers containers are told. */
import { isIP } from "node:net";
import { InvalidParameter } from "../errors.js";
import type { Endpoint } from "./index.js";
import {
  hostNameservers,
  hostResolvConf,
  type ResolvConf,
} from "./resolv-conf.js";

/** How long the host's resolvers are taken as read, in ms. */
const UPSTREAMS_FOR = 2000;

export interface ResolverSettings {
  /** Instead of the host's, where not empty. */
  dns: string[];
  dnsSearch: string[];
  dnsOptions: string[];
}

export class Resolvers {
  readonly #settings: ResolverSettings;
  #upstreams: { servers: string[]; until: number } | undefined;
  readonly #host: () => ResolvConf;

  /** @throws {InvalidParameter} a resolver is no IP address */
  constructor(
    settings: ResolverSettings,
    host: () => ResolvConf = hostResolvConf,
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
   * The servers that the name service asks. It asks from the host, so that the host's loopback is fine.
   */
  upstreams(): string[] {
    const { dns } = this.#settings;
    if (dns.length > 0) return dns;
    if (!this.#upstreams || this.#upstreams.until < Date.now()) {
      const servers = hostNameservers();
      this.#upstreams = { servers, until: Date.now() + UPSTREAMS_FOR };
    }
    return this.#upstreams.servers;
  }

  /**
   * Reads the host's file afresh, because the host may have moved to another network.
   * @param nameserver the network's own resolver, told instead of the host's
   */
  read(
    nameserver?: string,
  ): Pick<Endpoint, "nameservers" | "search" | "dnsOptions"> {
    const { dns, dnsSearch, dnsOptions } = this.#settings;
    const host = this.#host();
    const fromHost = nameserver ? [nameserver] : host.nameservers;
    return {
      nameservers: dns.length > 0 ? dns : fromHost,
      search: dnsSearch.length > 0 ? dnsSearch : host.search,
      dnsOptions: dnsOptions.length > 0 ? dnsOptions : host.options,
    };
  }
}
