/** Hands out the addresses of one subnet. */
import {
  type Address,
  contains,
  formatAddress,
  lastAddress,
  parseAddress,
  type Subnet,
} from "./ip.js";

/**
 * Addresses go out in order, starting behind the one that went out last, so that an address given back is
 * the last one to be used again: peers may have its old owner in their ARP tables.
 */
export class AddressPool {
  readonly subnet: Subnet;
  readonly #first: bigint;
  readonly #count: bigint;
  readonly #taken = new Set<bigint>();
  #last: bigint;

  /**
   * @param reserved addresses never handed out, such as the gateway
   * @param range the part of the subnet out of which addresses are chosen
   */
  constructor(subnet: Subnet, reserved: Address[], range: Subnet = subnet) {
    this.subnet = subnet;
    // The subnet's own address is nobody's (in IPv6 it is all routers'), nor is IPv4's broadcast address.
    // A /31 and a /32 have neither, but no room for a gateway either.
    const lowest = subnet.network + 1n;
    const highest = lastAddress(subnet).value - (subnet.family === 4 ? 1n : 0n);
    this.#first = range.network > lowest ? range.network : lowest;
    const last = lastAddress(range).value;
    this.#count = (last < highest ? last : highest) - this.#first + 1n;
    this.#last = this.#first - 1n;
    for (const { value } of reserved) {
      this.#taken.add(value);
    }
  }

  /** The address that went out last; set from a record when the pool is made again. */
  get last(): string {
    return this.#text(this.#last);
  }

  set last(text: string) {
    const address = parseAddress(text);
    if (contains(this.subnet, address)) {
      this.#last = address.value;
    }
  }

  /** @returns undefined when all are taken */
  allocate(): string | undefined {
    if (this.#count <= 0n) return undefined;
    const from = this.#last - this.#first;
    // Of so many tries one must hit an address that is not taken.
    const tries = BigInt(this.#taken.size) + 1n;
    const limit = tries < this.#count ? tries : this.#count;
    for (let step = 1n; step <= limit; step++) {
      const at = (from + step) % this.#count;
      const value = this.#first + (at < 0n ? at + this.#count : at);
      if (!this.#taken.has(value)) {
        this.#taken.add(value);
        this.#last = value;
        return this.#text(value);
      }
    }
    return undefined;
  }

  /**
   * Takes one certain address.
   * @returns false when it is taken or not of this subnet
   */
  reserve(text: string): boolean {
    const address = parseAddress(text);
    if (!contains(this.subnet, address) || this.#taken.has(address.value)) {
      return false;
    }
    this.#taken.add(address.value);
    return true;
  }

  release(text: string): void {
    this.#taken.delete(parseAddress(text).value);
  }

  #text(value: bigint): string {
    return formatAddress({ family: this.subnet.family, value });
  }
}

/** The MAC address Docker gives to the owner of an IPv4 address: 02:42 and the four bytes. */
export function macOf(address: string): string {
  const { value } = parseAddress(address);
  const digits = value.toString(16).padStart(8, "0").slice(-8);
  return ["02", "42", ...(digits.match(/../g) ?? [])].join(":");
}
