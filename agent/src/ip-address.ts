/** IP and MAC addresses as text and as what is in memory. */
import { Failure } from "./failure.js";

const DOT = 46;
const ZERO = 48;
const NINE = 57;
const COLON = 58;

/**
 * An address as it lies in memory, in words of 32 bits (little-endian: the first byte is the lowest): one of
 * IPv4, two of a MAC (the last one half), four of IPv6.
 */
export type AddressWords = number[];

/** @throws {Failure} the text is no address */
export function parseIp(text: string): AddressWords {
  const words = text.includes(":") ? parseIpv6(text) : parseIpv4(text);
  if (!words) throw new Failure("invalid", `not an IP address: ${text}`);
  return words;
}

/** Of an IP address. */
export function isIpv6(address: AddressWords): boolean {
  return address.length === 4;
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
  let valid = text.length === 17;
  for (let i = 2; i < 17; i += 3)
    if (text.charCodeAt(i) !== COLON) valid = false;
  const first = hex(
    text.slice(9, 11) + text.slice(6, 8) + text.slice(3, 5) + text.slice(0, 2),
  );
  const last = hex(text.slice(15) + text.slice(12, 14));
  if (!valid || first === undefined || last === undefined)
    throw new Failure("invalid", `not a MAC address: ${text}`);
  return [first, last];
}

/** The last address of an IPv4 network. */
export function broadcastOf(
  address: AddressWords,
  prefix: number,
): AddressWords {
  const hosts = prefix === 32 ? 0 : 0xffffffff >>> prefix;
  return [(address[0] as number) | swapped(hosts)];
}

/** The bytes of a word in reverse: from the order of numbers to that of memory, and back. */
function swapped(word: number): number {
  return (
    (word << 24) |
    ((word << 8) & 0xff0000) |
    ((word >>> 8) & 0xff00) |
    (word >>> 24)
  );
}

/** Every container's addresses come by here: character by character, as parts would be more work to make. */
function parseIpv4(text: string): AddressWords | undefined {
  let word = 0;
  let bytes = 0;
  let value = 0;
  let start = 0;
  for (let i = 0; ; i++) {
    const code = text.charCodeAt(i);
    if (code >= ZERO && code <= NINE) {
      value = value * 10 + code - ZERO;
    } else {
      const digits = i - start;
      if (digits < 1 || digits > 3 || value > 255) return undefined;
      word |= value << (8 * bytes++);
      if (bytes === 4) return i === text.length ? [word] : undefined;
      if (code !== DOT) return undefined;
      start = i + 1;
      value = 0;
    }
  }
}

function parseIpv6(text: string): AddressWords | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = groups(halves[0] as string);
  const tail = halves.length === 2 ? groups(halves[1] as string) : [];
  if (!head || !tail) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const all = [...head, ...(new Array(missing) as number[]).fill(0), ...tail];
  const words: number[] = [];
  for (let i = 0; i < 8; i += 2)
    words.push(swapped(((all[i] as number) << 16) | (all[i + 1] as number)));
  return words;
}

/** The numbers of colon-separated groups; the last one may be an IPv4 address. */
function groups(text: string): number[] | undefined {
  if (text === "") return [];
  const parts = text.split(":");
  const values: number[] = [];
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i] as string;
    if (i === parts.length - 1 && part.includes(".")) {
      const v4 = parseIpv4(part);
      if (!v4) return undefined;
      const word = swapped(v4[0] as number);
      values.push(word >>> 16, word & 0xffff);
    } else {
      const value = part.length > 4 ? undefined : hex(part);
      if (value === undefined) return undefined;
      values.push(value);
    }
  }
  return values;
}

function decimal(text: string, max: number): number | undefined {
  if (text === "" || text.length > 3) return undefined;
  let value = 0;
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - ZERO;
    if (digit < 0 || digit > 9) return undefined;
    value = value * 10 + digit;
  }
  return value <= max ? value : undefined;
}

/** Up to 12 digits. */
function hex(digits: string): number | undefined {
  if (digits === "") return undefined;
  // The zero, as spaces at the end would be overlooked.
  const value = Number(`0x${digits}0`) / 16;
  return Number.isNaN(value) ? undefined : value;
}
