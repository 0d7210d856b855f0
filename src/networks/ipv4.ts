/** IPv4 addresses as numbers, and subnets of them. */
import { isIPv4 } from "node:net";

/** A subnet in CIDR terms; `network` has no host bits. */
export interface Subnet {
  network: number;
  prefix: number;
}

/** @throws {RangeError} not a dotted quad */
export function parseAddress(text: string): number {
  if (!isIPv4(text)) {
    throw new RangeError(`invalid IPv4 address: ${text}`);
  }
  return text
    .split(".")
    .reduce((address, part) => address * 256 + Number(part), 0);
}

export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}

/**
 * Takes "10.1.2.3/16" apart. A bare address counts as a /32, as in a route table.
 * @throws {RangeError} no such address or prefix length
 */
export function parseInterface(text: string): {
  address: number;
  subnet: Subnet;
} {
  const [, host = "", length = "32"] =
    /^([^/]*)(?:\/(\d{1,2}))?$/.exec(text) ?? [];
  const address = parseAddress(host);
  const prefix = Number(length);
  if (prefix > 32) {
    throw new RangeError(`invalid prefix length: ${text}`);
  }
  return { address, subnet: { network: mask(address, prefix), prefix } };
}

/** @throws {RangeError} no such address or prefix length */
export function parseSubnet(text: string): Subnet {
  return parseInterface(text).subnet;
}

export function formatSubnet(subnet: Subnet): string {
  return `${formatAddress(subnet.network)}/${subnet.prefix}`;
}

/** The last address of a subnet: its broadcast address. */
export function lastAddress(subnet: Subnet): number {
  return subnet.network + 2 ** (32 - subnet.prefix) - 1;
}

export function contains(subnet: Subnet, address: number): boolean {
  return mask(address, subnet.prefix) === subnet.network;
}

export function overlaps(a: Subnet, b: Subnet): boolean {
  return contains(a, b.network) || contains(b, a.network);
}

function mask(address: number, prefix: number): number {
  // A shift by 32 is a shift by 0 in JavaScript.
  return prefix === 0
    ? 0
    : ((address >>> (32 - prefix)) << (32 - prefix)) >>> 0;
}
