/** IP and MAC addresses as text and as what is in memory. */
import { AF_INET, AF_INET6 } from "./constants.js";
import { Failure } from "./failure.js";

const ZERO = 48;
const COLON = 58;

/**
 * An address as it lies in memory, in words of 32 bits (little-endian: the first byte is the lowest): one of
 * IPv4, two of a MAC (the last one half), four of IPv6.
 */
export type AddressWords = number[];

/** Where an address is put that was found in a text. */
const found = new Int32Array(4);
const { buffer } = found;

/** @throws {Failure} the text is no address */
export function parseIp(text: string): AddressWords {
  const v6 = text.includes(":");
  if (!sys.inetPton(v6 ? AF_INET6 : AF_INET, text, buffer))
    throw new Failure("invalid", `not an IP address: ${text}`);
  return v6 ? [...found] : [found[0] as number];
}

/**
 * "172.17.0.2/16" as address and prefix length.
 * @throws {Failure} the text is not that
 */
export function parseCidr(text: string): {
  address: AddressWords;
  prefix: number;
} {
  const slash = text.indexOf("/");
  const address = parseIp(slash < 0 ? text : text.slice(0, slash));
  const bits = address.length * 32;
  const prefix = slash < 0 ? bits : decimal(text.slice(slash + 1), bits);
  if (prefix === undefined)
    throw new Failure("invalid", `not a prefix length: ${text}`);
  return { address, prefix };
}

/** @throws {Failure} the text is no MAC address */
export function parseMac(text: string): AddressWords {
  // All as one number, the last byte first: digit by digit the script takes three times as long.
  const digits =
    text.slice(15) +
    text.slice(12, 14) +
    text.slice(9, 11) +
    text.slice(6, 8) +
    text.slice(3, 5) +
    text.slice(0, 2);
  // With a zero, as spaces at the end would be overlooked.
  const value = +("0x" + digits + "0") / 16;
  let valid = text.length === 17 && value >= 0;
  for (let i = 2; i < 17; i += 3)
    if (text.charCodeAt(i) !== COLON) valid = false;
  if (!valid) throw new Failure("invalid", `not a MAC address: ${text}`);
  return [value | 0, (value / 0x100000000) | 0];
}

/** The last address of an IPv4 network. */
export function broadcastOf(
  address: AddressWords,
  prefix: number,
): AddressWords {
  const hosts = prefix === 32 ? 0 : 0xffffffff >>> prefix;
  const bytes =
    (hosts << 24) |
    ((hosts << 8) & 0xff0000) |
    ((hosts >>> 8) & 0xff00) |
    (hosts >>> 24);
  return [(address[0] as number) | bytes];
}

function decimal(text: string, max: number): number | undefined {
  const length = text.length;
  if (length === 0 || length > 3) return undefined;
  let value = 0;
  for (let i = 0; i < length; i++) {
    const digit = text.charCodeAt(i) - ZERO;
    if (digit < 0 || digit > 9) return undefined;
    value = value * 10 + digit;
  }
  return value <= max ? value : undefined;
}
