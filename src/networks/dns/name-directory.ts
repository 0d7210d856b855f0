/** Who is called what, on which network, at which address: what the name service answers from. */
import { formatAddress, parseAddress } from "../ip.js";

/** A container on a network that has names. */
export interface Member {
  containerId: string;
  networkId: string;
  networkName: string;
  /** The first one is what its address is translated back to; none on the default network. */
  names: string[];
  /** Addresses of both families. */
  addresses: string[];
  /** Names that only this container uses for others: name → the other's own name. */
  links: Record<string, string>;
  /** The network leads outside. */
  outward: boolean;
}

/** Names are compared without regard to case (RFC 4343). */
interface Entry extends Member {
  keys: Set<string>;
  linkKeys: Map<string, string>;
}

export class NameDirectory {
  /** By network, then by container. */
  readonly #networks = new Map<string, Map<string, Entry>>();

  set(member: Member): void {
    const network =
      this.#networks.get(member.networkId) ?? new Map<string, Entry>();
    this.#networks.set(member.networkId, network);
    network.set(member.containerId, {
      ...member,
      keys: new Set(member.names.map(key)),
      linkKeys: new Map(
        Object.entries(member.links).map(([name, other]) => [
          key(name),
          key(other),
        ]),
      ),
    });
  }

  remove(containerId: string, networkId: string): void {
    const network = this.#networks.get(networkId);
    network?.delete(containerId);
    if (network?.size === 0) this.#networks.delete(networkId);
  }

  /** Takes a container's names off all networks. */
  forget(containerId: string): void {
    for (const networkId of [...this.#networks.keys()]) {
      this.remove(containerId, networkId);
    }
  }

  /** The container that has an address on a network. */
  ownerOf(networkId: string, address: string): string | undefined {
    for (const entry of this.#networks.get(networkId)?.values() ?? []) {
      if (entry.addresses.includes(address)) return entry.containerId;
    }
    return undefined;
  }

  /**
   * The addresses a name has for a container, on the first of its networks that knows the name. Also
   * takes "name.network".
   * @returns undefined when nobody is called so
   */
  lookup(containerId: string, name: string): string[] | undefined {
    const wanted = key(name);
    for (const [own, network] of this.#networksOf(containerId)) {
      const suffix = `.${key(own.networkName)}`;
      const names = [own.linkKeys.get(wanted) ?? wanted];
      if (wanted.endsWith(suffix)) names.push(wanted.slice(0, -suffix.length));
      const found = [...network.values()].filter(({ keys }) =>
        names.some((one) => keys.has(one)),
      );
      if (found.length > 0) return found.flatMap((entry) => entry.addresses);
    }
    return undefined;
  }

  /** Whether one of a container's networks leads outside. */
  reachesOutside(containerId: string): boolean {
    return [...this.#networksOf(containerId)].some(([own]) => own.outward);
  }

  /** The name of an address on one of a container's networks: "name.network". */
  reverse(containerId: string, address: string): string | undefined {
    for (const [own, network] of this.#networksOf(containerId)) {
      for (const { addresses, names } of network.values()) {
        if (addresses.includes(address) && names[0] !== undefined) {
          return `${names[0]}.${own.networkName}`;
        }
      }
    }
    return undefined;
  }

  *#networksOf(containerId: string): Iterable<[Entry, Map<string, Entry>]> {
    for (const network of this.#networks.values()) {
      const own = network.get(containerId);
      if (own) yield [own, network];
    }
  }
}

function key(name: string): string {
  return name.toLowerCase();
}

/**
 * The address that a name for reverse lookup stands for: "2.0.18.172.in-addr.arpa", or the 32 digits of
 * "….ip6.arpa".
 */
export function addressOfReverseName(name: string): string | undefined {
  const v4 = /^((?:\d{1,3}\.){4})in-addr\.arpa$/i.exec(name)?.[1];
  const v6 = /^((?:[0-9a-f]\.){32})ip6\.arpa$/i.exec(name)?.[1];
  const parts = (v4 ?? v6)?.split(".").slice(0, -1).reverse();
  if (!parts) return undefined;
  const text = v4
    ? parts.join(".")
    : (parts.join("").match(/.{4}/g) ?? []).join(":");
  try {
    return formatAddress(parseAddress(text));
  } catch {
    return undefined;
  }
}
