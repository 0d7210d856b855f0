/** Hands out the addresses of one subnet. */
import { contains, formatAddress, lastAddress, type Subnet } from "./ipv4.js";

/**
 * Addresses go out in order, starting behind the one that went out last, so that an address given back is
 * the last one to be used again: peers may have its old owner in their ARP tables.
 */
export class AddressPool {
  readonly #subnet: Subnet;
  readonly #taken = new Set<number>();
  #last: number;

  /** @param reserved addresses never handed out, such as the gateway */
  constructor(subnet: Subnet, reserved: number[]) {
    this.#subnet = subnet;
    this.#last = subnet.network;
    for (const address of reserved) {
      this.#taken.add(address);
    }
  }

  /** The address that went out last; set from a record when the pool is made again. */
  get last(): number {
    return this.#last;
  }

  set last(address: number) {
    if (contains(this.#subnet, address)) {
      this.#last = address;
    }
  }

  /** @returns undefined when all are taken */
  allocate(): number | undefined {
    // A /31 and a /32 have neither network nor broadcast address, but no room for a gateway either.
    const first = this.#subnet.network + 1;
    const count = lastAddress(this.#subnet) - first;
    for (let step = 1; step <= count; step++) {
      const address = first + ((this.#last - first + step) % count);
      if (!this.#taken.has(address)) {
        this.#taken.add(address);
        this.#last = address;
        return address;
      }
    }
    return undefined;
  }

  /**
   * Takes one certain address.
   * @returns false when it is taken or not of this subnet
   */
  reserve(address: number): boolean {
    if (!contains(this.#subnet, address) || this.#taken.has(address)) {
      return false;
    }
    this.#taken.add(address);
    return true;
  }

  release(address: number): void {
    this.#taken.delete(address);
  }
}

/** The MAC address Docker gives to the owner of an IPv4 address: 02:42 and the four bytes. */
export function macOf(address: number): string {
  const bytes = formatAddress(address)
    .split(".")
    .map((part) => Number(part).toString(16).padStart(2, "0"));
  return ["02", "42", ...bytes].join(":");
}
