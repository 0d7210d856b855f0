/**
 * The tar format: POSIX ustar with pax extended headers (pubs.opengroup.org, "pax"), and of GNU's what
 * readers meet: long names and base-256 numbers. Headers are strings with one character a byte. Pure.
 */
import { Failure } from "../failure.js";
import type { Bytes } from "../sys.js";

export const BLOCK = 512;

/** An entry's header. Names, links and attribute values are bytes. */
export interface TarEntry {
  name: Bytes;
  type: TarType;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  seconds: number;
  nanoseconds: number;
  linkname: Bytes;
  major: number;
  minor: number;
  /** Extended attributes: name, value, name, value … */
  xattrs: Bytes[];
}

/** Type flags as they are written. */
export const TarType = {
  File: "0",
  Link: "1",
  Symlink: "2",
  CharacterDevice: "3",
  BlockDevice: "4",
  Directory: "5",
  Fifo: "6",
} as const;
export type TarType = (typeof TarType)[keyof typeof TarType];

/** What a reader throws: the archive is damaged or of a kind that is not read. */
export class TarError extends Failure {
  constructor(message: string) {
    super("invalid", message);
  }
}

const XATTR = "SCHILY.xattr.";
export const MAX_NAME = 100;
const MAX_OCTAL_7 = 0o7777777;
const MAX_OCTAL_11 = 0o77777777777;

/** An empty file of root's, to be filled in. */
export function blankEntry(): TarEntry {
  return {
    name: "",
    type: TarType.File,
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0,
    seconds: 0,
    nanoseconds: 0,
    linkname: "",
    major: 0,
    minor: 0,
    xattrs: [],
  };
}

/** The header's blocks: a pax header first where the entry needs one. Checksums are blank: see `CHECKSUM`. */
export function encodeEntry(entry: TarEntry): Bytes[] {
  const blocks: Bytes[] = [];
  if (needsPax(entry)) {
    const pax = paxRecords(entry);
    blocks.push(
      header({
        ...entry,
        name: `PaxHeaders.0/${lastName(entry.name)}`.slice(0, MAX_NAME),
        type: "x",
        mode: 0o644,
        size: pax.length,
        linkname: "",
        major: 0,
        minor: 0,
      }),
      pax.padEnd(Math.ceil(pax.length / BLOCK) * BLOCK, "\0"),
    );
  }
  blocks.push(header(entry));
  return blocks;
}

/** Place and length of the checksum in a header block. */
export const CHECKSUM = { at: 148, length: 8 } as const;
/** The checksum field for a block whose bytes, with a blank field, add up to `sum`. */
export function checksumField(sum: number): Bytes {
  return `${octal(sum, 6)}\0 `;
}

function header(
  entry: Omit<TarEntry, "type" | "xattrs"> & { type: string },
): Bytes {
  const { uid, gid, size, seconds } = entry;
  return (
    entry.name.slice(0, MAX_NAME).padEnd(MAX_NAME, "\0") +
    `${octal(entry.mode & 0o7777, 7)}\0` +
    `${octal(uid > MAX_OCTAL_7 ? 0 : uid, 7)}\0` +
    `${octal(gid > MAX_OCTAL_7 ? 0 : gid, 7)}\0` +
    `${octal(size > MAX_OCTAL_11 ? 0 : size, 11)}\0` +
    `${octal(inOctal(seconds) ? seconds : 0, 11)}\0` +
    "        " +
    entry.type +
    entry.linkname.slice(0, MAX_NAME).padEnd(MAX_NAME, "\0") +
    "ustar\x0000" +
    "\0".repeat(64) +
    `${octal(entry.major, 7)}\0${octal(entry.minor, 7)}\0` +
    "\0".repeat(167)
  );
}

/** Whether an entry has what a plain header cannot say. */
export function needsPax(entry: TarEntry): boolean {
  return (
    entry.nanoseconds > 0 ||
    entry.xattrs.length > 0 ||
    entry.name.length > MAX_NAME ||
    entry.linkname.length > MAX_NAME ||
    entry.uid > MAX_OCTAL_7 ||
    entry.gid > MAX_OCTAL_7 ||
    entry.size > MAX_OCTAL_11 ||
    !inOctal(entry.seconds)
  );
}

function paxRecords(entry: TarEntry): Bytes {
  const { name, linkname, uid, gid, size, seconds, nanoseconds } = entry;
  let records = "";
  if (name.length > MAX_NAME) records += record("path", name);
  if (linkname.length > MAX_NAME) records += record("linkpath", linkname);
  if (uid > MAX_OCTAL_7) records += record("uid", `${uid}`);
  if (gid > MAX_OCTAL_7) records += record("gid", `${gid}`);
  if (size > MAX_OCTAL_11) records += record("size", `${size}`);
  if (nanoseconds > 0 || !inOctal(seconds))
    records += record("mtime", paxTime(seconds, nanoseconds));
  for (let i = 0; i + 1 < entry.xattrs.length; i += 2)
    records += record(
      `${XATTR}${entry.xattrs[i] as Bytes}`,
      entry.xattrs[i + 1] as Bytes,
    );
  return records;
}

function inOctal(seconds: number): boolean {
  return seconds >= 0 && seconds <= MAX_OCTAL_11;
}

/** A time before 1970 counts down: -0.25 s is -1 s and 750,000,000 ns. */
function paxTime(seconds: number, nanoseconds: number): string {
  const negative = seconds < 0;
  const whole = negative && nanoseconds > 0 ? -seconds - 1 : Math.abs(seconds);
  const rest = negative && nanoseconds > 0 ? 1e9 - nanoseconds : nanoseconds;
  const fraction = rest > 0 ? `.${`${rest}`.padStart(9, "0")}` : "";
  return `${negative ? "-" : ""}${whole}${fraction}`;
}

/** A pax record says its own length, digits included. */
function record(key: string, value: Bytes): Bytes {
  const rest = key.length + value.length + 3;
  let length = rest + `${rest}`.length;
  if (`${length}`.length > `${rest}`.length) length = rest + `${length}`.length;
  return `${length} ${key}=${value}\n`;
}

function octal(value: number, digits: number): string {
  return value.toString(8).padStart(digits, "0");
}

function lastName(name: Bytes): Bytes {
  const end = name.endsWith("/") ? name.length - 1 : name.length;
  return name.slice(name.lastIndexOf("/", end - 1) + 1, end);
}

/** A header block as it was read; `type` may be one that is no entry: x, g, L, K. */
export interface RawHeader {
  name: Bytes;
  type: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  seconds: number;
  linkname: Bytes;
  major: number;
  minor: number;
}

/**
 * @param sum of the block's bytes
 * @throws {TarError}
 */
export function decodeHeader(block: Bytes, sum: number): RawHeader {
  const written = numberIn(block, CHECKSUM.at, CHECKSUM.length);
  let blank = sum + CHECKSUM.length * 32;
  for (let i = 0; i < CHECKSUM.length; i++)
    blank -= block.charCodeAt(CHECKSUM.at + i);
  if (written !== blank) throw new TarError("archive/tar: invalid tar header");
  const ustar = block.slice(257, 262) === "ustar";
  // GNU's own format has times where ustar has the prefix.
  const prefix =
    ustar && block.charCodeAt(262) === 0 ? stringIn(block, 345, 155) : "";
  const name = stringIn(block, 0, 100);
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    type: block.charAt(156),
    mode: numberIn(block, 100, 8),
    uid: numberIn(block, 108, 8),
    gid: numberIn(block, 116, 8),
    size: numberIn(block, 124, 12),
    seconds: numberIn(block, 136, 12),
    linkname: stringIn(block, 157, 100),
    major: ustar ? numberIn(block, 329, 8) : 0,
    minor: ustar ? numberIn(block, 337, 8) : 0,
  };
}

/** Values of an extended header; a value of "" takes an earlier one back. @throws {TarError} */
export function decodePax(text: Bytes): Map<string, Bytes> {
  const records = new Map<string, Bytes>();
  for (let at = 0; at < text.length;) {
    const space = text.indexOf(" ", at);
    const digits = text.slice(at, space);
    const length = decimal(digits);
    const end = at + (length ?? 0);
    const equals = text.indexOf("=", space);
    if (
      space < 0 ||
      length === undefined ||
      end > text.length ||
      text.charAt(end - 1) !== "\n" ||
      equals <= space + 1 ||
      equals >= end
    )
      throw new TarError("archive/tar: invalid tar header: extended header");
    records.set(text.slice(space + 1, equals), text.slice(equals + 1, end - 1));
    at = end;
  }
  return records;
}

/** Puts a header and the extended header before it together. @throws {TarError} */
export function entryOf(raw: RawHeader, pax: Map<string, Bytes>): TarEntry {
  let { name, linkname, uid, gid, size, seconds } = raw;
  let nanoseconds = 0;
  const xattrs: Bytes[] = [];
  const number = (key: string, value: Bytes) => {
    const parsed = decimal(value);
    if (parsed === undefined)
      throw new TarError(`archive/tar: invalid tar header: ${key}`);
    return parsed;
  };
  pax.forEach((value, key) => {
    if (value === "") return;
    if (key === "path") name = value;
    else if (key === "linkpath") linkname = value;
    else if (key === "uid") uid = number(key, value);
    else if (key === "gid") gid = number(key, value);
    else if (key === "size") size = number(key, value);
    else if (key === "mtime") ({ seconds, nanoseconds } = timeOf(value));
    else if (key.startsWith(XATTR)) xattrs.push(key.slice(XATTR.length), value);
    else if (key.startsWith("GNU.sparse."))
      throw new TarError("archive/tar: sparse files are not supported");
  });
  return {
    name,
    type: typeOf(raw.type, name),
    mode: raw.mode & 0o7777,
    uid,
    gid,
    size,
    seconds,
    nanoseconds,
    linkname,
    major: raw.major,
    minor: raw.minor,
    xattrs,
  };
}

function typeOf(flag: string, name: Bytes): TarType {
  // Old archives have no type for folders.
  if (flag === "\0" || flag === "0" || flag === "7")
    return flag === "\0" && name.endsWith("/")
      ? TarType.Directory
      : TarType.File;
  if (flag >= "1" && flag <= "6") return flag as TarType;
  if (flag === "S")
    throw new TarError("archive/tar: sparse files are not supported");
  throw new TarError(`unhandled tar header type ${flag.charCodeAt(0)}`);
}

function timeOf(value: Bytes): { seconds: number; nanoseconds: number } {
  const negative = value.startsWith("-");
  const [whole = "", fraction = ""] = value.slice(negative ? 1 : 0).split(".");
  const seconds = decimal(whole);
  const rest = fraction === "" ? 0 : decimal(fraction.slice(0, 9));
  if (seconds === undefined || rest === undefined)
    throw new TarError("archive/tar: invalid tar header: mtime");
  const nanoseconds = rest * 10 ** (9 - Math.min(fraction.length, 9));
  if (!negative) return { seconds, nanoseconds };
  return nanoseconds > 0
    ? { seconds: -seconds - 1, nanoseconds: 1e9 - nanoseconds }
    : { seconds: -seconds, nanoseconds: 0 };
}

function stringIn(block: Bytes, at: number, length: number): Bytes {
  const field = block.slice(at, at + length);
  const end = field.indexOf("\0");
  return end < 0 ? field : field.slice(0, end);
}

/** Octal digits, or base-256 when the first bit is set. Negative numbers occur in times only. */
function numberIn(block: Bytes, at: number, length: number): number {
  const first = block.charCodeAt(at);
  if (first >= 0x80) {
    let value = first === 0xff ? -1 : first & 0x7f;
    for (let i = 1; i < length; i++)
      value = value * 256 + block.charCodeAt(at + i);
    if (!Number.isSafeInteger(value))
      throw new TarError("archive/tar: invalid tar header: number");
    return value;
  }
  const text = stringIn(block, at, length).trim();
  let value = 0;
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (digit < 0 || digit > 7)
      throw new TarError("archive/tar: invalid tar header: number");
    value = value * 8 + digit;
  }
  return value;
}

/** Digits only, up to 2^53; undefined for anything else. */
function decimal(text: string): number | undefined {
  if (text === "" || text.length > 16) return undefined;
  let value = 0;
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (digit < 0 || digit > 9) return undefined;
    value = value * 10 + digit;
  }
  return Number.isSafeInteger(value) ? value : undefined;
}
