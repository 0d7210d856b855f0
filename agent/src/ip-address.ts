/** IP and MAC addresses as text and bytes. */

const ZERO = 48;
const NINE = 57;
const LOWER_A = 97;

/** An address's bytes: 4 of IPv4, 6 of a MAC, 16 of IPv6. */
export type AddressBytes = number[];

/** @throws {RangeError} the text is no address */
export function parseIp(text: string): AddressBytes {
  const bytes = text.includes(":") ? parseIpv6(text) : parseIpv4(text);
  if (!bytes) throw new RangeError(`not an IP address: ${text}`);
  return bytes;
}

/**
 * "172.17.0.2/16" as address and prefix length.
 * @throws {RangeError} the text is not that
 */
export function parseCidr(text: string): {
  address: AddressBytes;
  prefix: number;
} {
  const slash = text.indexOf("/");
  const address = parseIp(slash < 0 ? text : text.slice(0, slash));
  const bits = address.length * 8;
  const prefix = slash < 0 ? bits : decimal(text.slice(slash + 1), bits);
  if (prefix === undefined)
    throw new RangeError(`not a prefix length: ${text}`);
  return { address, prefix };
}

/** @throws {RangeError} the text is no MAC address */
export function parseMac(text: string): AddressBytes {
  const bytes = bytesOf(text.split(":"), 6, (part) =>
    part.length === 2 ? hex(part) : undefined,
  );
  if (!bytes) throw new RangeError(`not a MAC address: ${text}`);
  return bytes;
}

/** The last address of an IPv4 network. */
export function broadcastOf(
  address: AddressBytes,
  prefix: number,
): AddressBytes {
  return address.map((byte, i) => {
    const hostBits = Math.min(8, Math.max(0, 8 * (i + 1) - prefix));
    return byte | ((1 << hostBits) - 1);
  });
}

function parseIpv4(text: string): AddressBytes | undefined {
  return bytesOf(text.split("."), 4, (part) => decimal(part, 255));
}

/** A byte for each part; undefined where one is none, or there are not so many. */
function bytesOf(
  parts: string[],
  count: number,
  parse: (part: string) => number | undefined,
): AddressBytes | undefined {
  if (parts.length !== count) return undefined;
  const bytes: number[] = [];
  for (const part of parts) {
    const byte = parse(part);
    if (byte === undefined) return undefined;
    bytes.push(byte);
  }
  return bytes;
}

function parseIpv6(text: string): AddressBytes | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = groups(halves[0] as string);
  const tail = halves.length === 2 ? groups(halves[1] as string) : [];
  if (!head || !tail) return undefined;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 2 ? missing < 2 : missing !== 0) return undefined;
  return [...head, ...(new Array(missing) as number[]).fill(0), ...tail];
}

/** Bytes of colon-separated groups; the last one may be an IPv4 address. */
function groups(text: string): AddressBytes | undefined {
  if (text === "") return [];
  const parts = text.split(":");
  const bytes: number[] = [];
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i] as string;
    if (i === parts.length - 1 && part.includes(".")) {
      const v4 = parseIpv4(part);
      if (!v4) return undefined;
      bytes.push(...v4);
    } else {
      const value = hex(part);
      if (value === undefined || part.length > 4) return undefined;
      bytes.push(value >> 8, value & 0xff);
    }
  }
  return bytes;
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

function hex(text: string): number | undefined {
  if (text === "") return undefined;
  let value = 0;
  for (let i = 0; i < text.length; i++) {
    const digit = hexDigit(text.charCodeAt(i));
    if (digit < 0) return undefined;
    value = value * 16 + digit;
  }
  return value;
}

/** Its value by its character's code; below 0 for none. */
function hexDigit(code: number): number {
  if (code <= NINE) return code - ZERO;
  const letter = (code | 0x20) - LOWER_A;
  return letter >= 0 && letter < 6 ? 10 + letter : -1;
}
