/** IP addresses of both families as numbers, and subnets of them. */
import { isIP } from "node:net";
import ipaddr from "ipaddr.js";

export type Family = 4 | 6;

export interface Address {
  family: Family;
  value: bigint;
}

/** A subnet in CIDR terms; `network` has no host bits. */
export interface Subnet {
  family: Family;
  network: bigint;
  prefix: number;
}

/** @throws {RangeError} neither a dotted quad nor an IPv6 address; one with a zone is none */
export function parseAddress(text: string): Address {
  const family = isIP(text);
  if (family === 0 || text.includes("%")) {
    throw new RangeError(`invalid IP address: ${text}`);
  }
  const bytes = ipaddr.parse(text).toByteArray();
  const value = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  return { family: family as Family, value };
}

/** The one form an address is compared and shown in (RFC 5952 for IPv6). */
export function formatAddress({ family, value }: Address): string {
  const length = family === 4 ? 4 : 16;
  const bytes = Array.from({ length }, (_, at) =>
    Number((value >> BigInt(8 * (length - 1 - at))) & 255n),
  );
  const address = ipaddr.fromByteArray(bytes);
  return address instanceof ipaddr.IPv6
    ? address.toRFC5952String()
    : address.toString();
}

/** @throws {RangeError} no address */
export function canonical(text: string): string {
  return formatAddress(parseAddress(text));
}

/**
 * Takes "10.1.2.3/16" apart. A bare address counts as a subnet of its own, as in a route table.
 * @throws {RangeError} no such address or prefix length
 */
export function parseInterface(text: string): {
  address: Address;
  subnet: Subnet;
} {
  const [, host = "", length] = /^([^/]*)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const address = parseAddress(host);
  const prefix = length === undefined ? bits(address.family) : Number(length);
  if (prefix > bits(address.family)) {
    throw new RangeError(`invalid prefix length: ${text}`);
  }
  return { address, subnet: subnetOf(address, prefix) };
}

/** @throws {RangeError} no such address or prefix length */
export function parseSubnet(text: string): Subnet {
  return parseInterface(text).subnet;
}

/** The subnet of a prefix length that an address is in. */
export function subnetOf({ family, value }: Address, prefix: number): Subnet {
  const host = BigInt(bits(family) - prefix);
  return { family, network: (value >> host) << host, prefix };
}

export function formatSubnet({ family, network, prefix }: Subnet): string {
  return `${formatAddress({ family, value: network })}/${prefix}`;
}

/** The n-th address of a subnet, counted from 0. */
export function nthAddress({ family, network }: Subnet, n: number): Address {
  return { family, value: network + BigInt(n) };
}

/** The last address of a subnet: in IPv4 its broadcast address. */
export function lastAddress({ family, network, prefix }: Subnet): Address {
  const value = network + (1n << BigInt(bits(family) - prefix)) - 1n;
  return { family, value };
}

export function contains(subnet: Subnet, address: Address): boolean {
  return (
    subnet.family === address.family &&
    subnetOf(address, subnet.prefix).network === subnet.network
  );
}

export function overlaps(a: Subnet, b: Subnet): boolean {
  const first = ({ family, network }: Subnet) => ({ family, value: network });
  return contains(a, first(b)) || contains(b, first(a));
}

function bits(family: Family): number {
  return family === 4 ? 32 : 128;
}
