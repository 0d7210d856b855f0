/**
 * One entry of a tar archive: decoding of what a layer may hold (POSIX ustar and PAX, GNU, V7) and
 * encoding into the one strict form the file system maker is given.
 *
 * tar-stream is not used here because it reads PAX values as UTF-8, which destroys binary extended
 * attributes (security.capability) and file names in other encodings. Strings here are "binary":
 * one character is one byte.
 */

export const BLOCK = 512;

/** A decoded header block; long names and PAX records are not applied yet. */
export interface TarHeader {
  /** POSIX typeflag: "0" for regular files, "\0" for what old archives have as files and directories. */
  type: string;
  name: string;
  linkName: string;
  mode: number;
  uid: number;
  gid: number;
  /** Bytes of the body that follows. */
  size: number;
  /** Seconds since the epoch; may be negative. */
  mtime: number;
  deviceMajor: number;
  deviceMinor: number;
}

/** An entry as it is written. */
export interface TarEntry extends TarHeader {
  mtimeNanoseconds: number;
  /** Names without the "SCHILY.xattr." prefix. */
  xattrs: ReadonlyMap<string, string>;
}

export const NO_XATTRS: ReadonlyMap<string, string> = new Map();

/** The archive is not well-formed. */
export class TarError extends Error {}

/**
 * Decodes a header block.
 * @returns undefined for a block of zeros
 * @throws {TarError} bad checksum or numbers
 */
export function decodeHeader(block: Buffer): TarHeader | undefined {
  if (block[0] === 0 && ZEROS.equals(block)) return undefined;
  const checksum = number(block, 148, 8, "checksum");
  if (checksum !== sumOf(block) && checksum !== signedSumOf(block)) {
    throw new TarError("archive/tar: invalid tar header");
  }
  const magic = block.toString("latin1", 257, 265);
  const posix = magic.startsWith("ustar\0");
  const gnu = magic === "ustar  \0";
  const prefixLength =
    posix && block.toString("latin1", 508, 512) === "tar\0" ? 131 : 155;
  const prefix =
    posix && block[345] !== 0 ? text(block, 345, prefixLength) : "";
  const name = text(block, 0, 100);
  const flag = block.toString("latin1", 156, 157);
  const type = flag === "7" ? "0" : flag;
  const device = type === "3" || type === "4";
  const link = type === "1" || type === "2";
  return {
    type,
    name: prefix === "" ? name : `${prefix}/${name}`,
    linkName: link ? text(block, 157, 100) : "",
    mode: number(block, 100, 8, "mode"),
    uid: number(block, 108, 8, "uid"),
    gid: number(block, 116, 8, "gid"),
    size: number(block, 124, 12, "size"),
    mtime: number(block, 136, 12, "mtime"),
    deviceMajor:
      device && (posix || gnu) ? number(block, 329, 8, "devmajor") : 0,
    deviceMinor:
      device && (posix || gnu) ? number(block, 337, 8, "devminor") : 0,
  };
}

/**
 * Decodes the body of a PAX header into its records; an empty value means "as if not given".
 * @throws {TarError} a record is malformed
 */
export function decodePax(body: Buffer): Map<string, string> {
  const records = new Map<string, string>();
  let offset = 0;
  while (offset < body.length) {
    // Some writers pad with zeros.
    if (body[offset] === 0) break;
    const space = body.indexOf(0x20, offset);
    const digits = space < 0 ? "" : body.toString("latin1", offset, space);
    if (!/^[0-9]{1,10}$/.test(digits)) throw invalidPax();
    const end = offset + Number(digits);
    if (end > body.length || end <= space + 2 || body[end - 1] !== 0x0a) {
      throw invalidPax();
    }
    const record = body.toString("latin1", space + 1, end - 1);
    const equals = record.indexOf("=");
    if (equals <= 0) throw invalidPax();
    records.set(record.slice(0, equals), record.slice(equals + 1));
    offset = end;
  }
  return records;
}

const OCTAL_7 = 0o7777777;
const OCTAL_11 = 0o77777777777;

/** Encodes an entry as ustar, with a PAX header before it where ustar cannot say it. */
export function encodeEntry(entry: TarEntry): Buffer {
  const records: string[] = [];
  if (entry.name.length > 100) records.push(record("path", entry.name));
  if (entry.linkName.length > 100) {
    records.push(record("linkpath", entry.linkName));
  }
  if (entry.size > OCTAL_11) records.push(record("size", `${entry.size}`));
  if (entry.uid > OCTAL_7) records.push(record("uid", `${entry.uid}`));
  if (entry.gid > OCTAL_7) records.push(record("gid", `${entry.gid}`));
  if (entry.mtime > OCTAL_11 || entry.mtimeNanoseconds > 0) {
    const fraction = `${entry.mtimeNanoseconds}`.padStart(9, "0");
    records.push(record("mtime", `${entry.mtime}.${fraction}`));
  }
  for (const [name, value] of entry.xattrs) {
    records.push(record(`SCHILY.xattr.${name}`, value));
  }
  if (records.length === 0) return encodeBlock(entry);
  const body = Buffer.from(records.join(""), "latin1");
  const header = encodeBlock({
    ...entry,
    type: "x",
    name: "pax",
    linkName: "",
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: 0,
    size: body.length,
    deviceMajor: 0,
    deviceMinor: 0,
  });
  return Buffer.concat([
    header,
    body,
    Buffer.alloc(padding(body.length)),
    encodeBlock(entry),
  ]);
}

/** Zeros after a body of that size. */
export function padding(size: number): number {
  const rest = size % BLOCK;
  return rest === 0 ? 0 : BLOCK - rest;
}

function encodeBlock(header: TarHeader): Buffer {
  const block = Buffer.from(TEMPLATE);
  writeText(block, header.name, 0);
  octal(block, header.mode, 100, 7);
  octal(block, header.uid > OCTAL_7 ? 0 : header.uid, 108, 7);
  octal(block, header.gid > OCTAL_7 ? 0 : header.gid, 116, 7);
  octal(block, header.size > OCTAL_11 ? 0 : header.size, 124, 11);
  octal(block, header.mtime > OCTAL_11 ? 0 : header.mtime, 136, 11);
  writeText(block, header.type, 156);
  writeText(block, header.linkName, 157);
  octal(block, header.deviceMajor, 329, 7);
  octal(block, header.deviceMinor, 337, 7);
  octal(block, sumOf(block), 148, 6);
  block[154] = 0;
  return block;
}

// The loops below are by hand because they run for every file of every layer.

const ZEROS = Buffer.alloc(BLOCK);
const TEMPLATE = Buffer.alloc(BLOCK);
TEMPLATE.write("        ", 148, "latin1");
TEMPLATE.write("ustar\x0000", 257, "latin1");

/** The sum of a header's bytes, with spaces where the sum itself stands. */
function sumOf(block: Buffer): number {
  let sum = 8 * 0x20;
  for (let i = 0; i < 148; i++) sum += block[i] as number;
  for (let i = 156; i < BLOCK; i++) sum += block[i] as number;
  return sum;
}

/** As some old writers summed. */
function signedSumOf(block: Buffer): number {
  let sum = 8 * 0x20;
  for (let i = 0; i < BLOCK; i++) {
    if (i < 148 || i >= 156) sum += block.readInt8(i);
  }
  return sum;
}

function writeText(block: Buffer, value: string, offset: number): void {
  const length = Math.min(value.length, 100);
  for (let i = 0; i < length; i++) block[offset + i] = value.charCodeAt(i);
}

function octal(
  block: Buffer,
  value: number,
  offset: number,
  digits: number,
): void {
  let rest = value;
  for (let i = offset + digits - 1; i >= offset; i--) {
    const higher = Math.floor(rest / 8);
    block[i] = 0x30 + (rest - higher * 8);
    rest = higher;
  }
}

function record(key: string, value: string): string {
  const payload = key.length + value.length + 3;
  let length = payload + `${payload}`.length;
  length = payload + `${length}`.length;
  return `${length} ${key}=${value}\n`;
}

function text(block: Buffer, offset: number, length: number): string {
  const end = block.indexOf(0, offset);
  const limit = offset + length;
  return block.toString("latin1", offset, end < 0 || end > limit ? limit : end);
}

/** Octal digits between spaces and zeros, or GNU's base-256. */
function number(
  block: Buffer,
  offset: number,
  length: number,
  field: string,
): number {
  const first = block[offset] as number;
  if ((first & 0x80) !== 0) {
    const negative = (first & 0x40) !== 0;
    let value = BigInt(negative ? first | ~0xff : first & 0x3f);
    for (let i = 1; i < length; i++) {
      value = value * 256n + BigInt(block[offset + i] as number);
    }
    if (
      value > BigInt(Number.MAX_SAFE_INTEGER) ||
      value < -BigInt(Number.MAX_SAFE_INTEGER)
    ) {
      throw new TarError(`archive/tar: ${field} out of range`);
    }
    return Number(value);
  }
  const end = offset + length;
  let at = offset;
  while (at < end && (block[at] === 0x20 || block[at] === 0)) at++;
  let value = 0;
  for (; at < end; at++) {
    const digit = (block[at] as number) - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  if (at < end && block[at] !== 0x20 && block[at] !== 0) {
    throw new TarError(`archive/tar: invalid ${field} in header`);
  }
  return value;
}

function invalidPax(): TarError {
  return new TarError("archive/tar: invalid PAX record");
}

/** A name in a message: as UTF-8, quoted, not too long. */
export function show(name: string): string {
  const text = Buffer.from(name.slice(0, 200), "latin1").toString("utf8");
  return JSON.stringify(name.length > 200 ? `${text}…` : text);
}
