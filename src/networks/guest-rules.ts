/**
 * What a guest may send: frames with the MAC and the addresses that are its own. A guest's root can put
 * anything on the wire; what it claims to be is checked where its tap meets the bridge, before the bridge
 * learns from it and before a neighbour or the host hears it. A tap without rules passes nothing.
 */
import { formatAddress, parseAddress, subnetOf } from "./ip.js";
import type { NftShell } from "./nft-shell.js";

export interface Guest {
  mac: string;
  /** Its addresses of both families. */
  addresses: string[];
}

interface Change {
  /** Commands of nft; absent: the whole table anew. */
  lines?: string[];
  resolve: () => void;
  reject: (error: unknown) => void;
}

/** The one writer of the daemon's nftables table of the bridge family. */
export class GuestRules {
  readonly #table: string;
  readonly #taps: string;
  readonly #guests = new Map<string, Guest>();
  readonly #nft: NftShell;
  #waiting: Change[] = [];
  #running = false;

  /**
   * @param table name of the table
   * @param taps what the names of the daemon's taps begin with
   */
  constructor(table: string, taps: string, nft: NftShell) {
    this.#nft = nft;
    this.#table = table;
    this.#taps = taps;
  }

  /**
   * Makes the table, or takes it over: guests that an earlier daemon admitted stay admitted until
   * `reset`.
   * @throws {SystemError} nft refused, in its words
   */
  open(): Promise<void> {
    return this.#change(this.#base());
  }

  /**
   * Lets a guest send by a tap.
   * @throws {SystemError} nft refused, in its words
   */
  admit(tap: string, guest: Guest): Promise<void> {
    this.#guests.set(tap, guest);
    return this.#change(this.#admission(tap, guest));
  }

  /** Notes a guest that was admitted before; `reset` puts it in force if it was not. */
  note(tap: string, guest: Guest): void {
    this.#guests.set(tap, guest);
  }

  /** Takes the rules of a tap back, which then passes nothing. */
  async dismiss(tap: string): Promise<void> {
    if (!this.#guests.delete(tap)) return;
    await this.#change([
      `delete element bridge ${this.#table} guests { "${tap}" }`,
      `flush chain bridge ${this.#table} ${chain(tap)}`,
      `delete chain bridge ${this.#table} ${chain(tap)}`,
    ]);
  }

  /**
   * Makes the table anew in one transaction, with the guests that are known and no others.
   * @throws {SystemError} nft refused, in its words
   */
  reset(): Promise<void> {
    return this.#change(undefined);
  }

  #change(lines: string[] | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ ...(lines && { lines }), resolve, reject });
      if (!this.#running) void this.#run();
    });
  }

  /** Changes that came while nft ran go together. */
  async #run(): Promise<void> {
    this.#running = true;
    while (this.#waiting.length > 0) {
      const changes = this.#waiting.splice(0);
      try {
        await this.#apply(changes);
        changes.forEach(({ resolve }) => resolve());
      } catch (error) {
        changes.forEach(({ reject }) => reject(error));
      }
    }
    this.#running = false;
  }

  async #apply(changes: Change[]): Promise<void> {
    if (changes.every(({ lines }) => lines)) {
      try {
        await this.#nft.run(changes.flatMap(({ lines }) => lines ?? []));
        return;
      } catch {
        // Somebody flushed the host's rules, perhaps: all is made anew from what is known.
      }
    }
    await this.#nft.run(this.#whole());
  }

  #whole(): string[] {
    const table = `table bridge ${this.#table}`;
    const guests = [...this.#guests].flatMap(([tap, guest]) =>
      this.#admission(tap, guest),
    );
    return [`add ${table}`, `delete ${table}`, ...this.#base(), ...guests];
  }

  #base(): string[] {
    const table = `bridge ${this.#table}`;
    return [
      `add table ${table}`,
      `add map ${table} guests { type ifname : verdict; }`,
      `add chain ${table} prerouting { type filter hook prerouting priority dstnat; policy accept; }`,
      `add chain ${table} guest`,
      `flush chain ${table} prerouting`,
      `flush chain ${table} guest`,
      `add rule ${table} prerouting iifname "${this.#taps}*" jump guest`,
      `add rule ${table} guest ether type { 8021q, 8021ad } drop`,
      `add rule ${table} guest iifname vmap @guests`,
      `add rule ${table} guest drop`,
    ];
  }

  #admission(tap: string, guest: Guest): string[] {
    const name = `bridge ${this.#table} ${chain(tap)}`;
    return [
      `add chain ${name}`,
      `flush chain ${name}`,
      ...guestRules(guest).map((rule) => `add rule ${name} ${rule}`),
      `add element bridge ${this.#table} guests { "${tap}" : goto ${chain(tap)} }`,
    ];
  }
}

/** The rules of one tap's chain. */
export function guestRules({ mac, addresses }: Guest): string[] {
  const v4 = addresses.filter((address) => !address.includes(":"));
  const v6 = addresses.filter((address) => address.includes(":"));
  // A guest on a network with IPv6 also has the link-local address that its kernel makes from the MAC.
  if (v6.length > 0) v6.push(linkLocalOf(mac));
  return [
    `ether saddr != ${mac} drop`,
    // 0.0.0.0: a probe, which claims nothing (RFC 5227).
    `ether type arp arp saddr ether ${mac} arp saddr ip { ${["0.0.0.0", ...v4].join(", ")} } accept`,
    ...(v4.length > 0
      ? [`ether type ip ip saddr { ${v4.join(", ")} } accept`]
      : []),
    ...(v6.length > 0 ? ipv6Rules(v6) : []),
    "drop",
  ];
}

function ipv6Rules(addresses: string[]): string[] {
  const own = `{ ${addresses.join(", ")} }`;
  // nft 1.0 has no name for the target of a neighbour discovery message: 8 bytes behind its begin.
  const targets = addresses
    .map((text) => `0x${parseAddress(text).value.toString(16)}`)
    .join(", ");
  return [
    "ether type != ip6 drop",
    "icmpv6 type { nd-router-advert, nd-redirect } drop",
    `icmpv6 type nd-neighbor-advert @th,64,128 != { ${targets} } drop`,
    `ip6 saddr ${own} accept`,
    // Duplicate address detection, and joining the groups it listens on, have no address yet.
    `ip6 saddr :: icmpv6 type nd-neighbor-solicit @th,64,128 { ${targets} } accept`,
    "ip6 saddr :: icmpv6 type mld2-listener-report accept",
  ];
}

/** The link-local address of a MAC (RFC 4291, appendix A). */
export function linkLocalOf(mac: string): string {
  const bytes = mac.split(":").map((part) => parseInt(part, 16));
  const eui64 = [(bytes[0] ?? 0) ^ 2, ...bytes.slice(1, 3), 0xff, 0xfe].concat(
    bytes.slice(3),
  );
  const host = eui64.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  const { network } = subnetOf(parseAddress("fe80::"), 64);
  return formatAddress({ family: 6, value: network + host });
}

function chain(tap: string): string {
  return `guest-${tap}`;
}
