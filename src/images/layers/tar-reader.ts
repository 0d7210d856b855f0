import {
  BLOCK,
  decodeHeader,
  decodePax,
  NO_XATTRS,
  padding,
  show,
  TarError,
  type TarEntry,
  type TarHeader,
} from "./tar-header.js";

/** The longest PAX header or GNU long name. */
const MAX_EXTENSION = 2 ** 20;
const MAX_NAME = 255;
const MAX_ID = 2 ** 32 - 2;

/** Takes what a {@link TarReader} finds, in the archive's order. */
export interface TarHandler {
  /** @returns whether the entry's body is wanted */
  entry(entry: TarEntry): boolean;
  /** A piece of the last entry's body. */
  body(piece: Buffer): void;
  /** The last entry's body is over. */
  bodyEnd(): void;
}

/**
 * Takes an archive apart while it streams by: headers with their PAX records and long names applied,
 * and bodies in the pieces they arrive in. Knows what is well-formed, not what is harmless.
 */
export class TarReader {
  readonly #handler: TarHandler;
  #state: "header" | "extension" | "body" | "end" = "header";
  /** Bytes collected of a header or extension. */
  #collected: Buffer[] = [];
  #wanted = BLOCK;
  /** Of the entry whose body passes by. */
  #bodyLeft = 0;
  #bodyPadding = 0;
  #bodyKept = false;
  /** Bytes between a body and the next header. */
  #skip = 0;
  #zeroBlocks = 0;
  #extension = "";
  #pax: Map<string, string> | undefined;
  #longName: string | undefined;
  #longLink: string | undefined;

  constructor(handler: TarHandler) {
    this.#handler = handler;
  }

  /** @throws {TarError} the archive is malformed; what the handler throws */
  consume(chunk: Buffer): void {
    let offset = 0;
    while (offset < chunk.length) {
      if (this.#state === "end") return;
      if (this.#state === "body") {
        const take = Math.min(this.#bodyLeft, chunk.length - offset);
        if (this.#bodyKept) {
          this.#handler.body(chunk.subarray(offset, offset + take));
        }
        offset += take;
        this.#bodyLeft -= take;
        if (this.#bodyLeft === 0) this.#endBody();
        continue;
      }
      if (this.#skip > 0) {
        const take = Math.min(this.#skip, chunk.length - offset);
        offset += take;
        this.#skip -= take;
        continue;
      }
      const take = Math.min(this.#wanted, chunk.length - offset);
      this.#collected.push(chunk.subarray(offset, offset + take));
      offset += take;
      this.#wanted -= take;
      if (this.#wanted > 0) continue;
      const block =
        this.#collected.length === 1
          ? (this.#collected[0] as Buffer)
          : Buffer.concat(this.#collected);
      this.#collected = [];
      this.#wanted = BLOCK;
      if (this.#state === "extension") this.#endExtension(block);
      else this.#header(block);
    }
  }

  /** @throws {TarError} the archive may not end here */
  end(): void {
    if (
      this.#bodyLeft > 0 ||
      this.#collected.length > 0 ||
      this.#state === "extension" ||
      this.#pax !== undefined ||
      this.#longName !== undefined
    ) {
      throw new TarError("unexpected EOF");
    }
  }

  #header(block: Buffer): void {
    const header = decodeHeader(block);
    if (header === undefined) {
      if (++this.#zeroBlocks === 2) this.#state = "end";
      return;
    }
    if (this.#zeroBlocks > 0)
      throw new TarError("archive/tar: invalid tar header");
    if (header.size < 0) throw new TarError("archive/tar: negative size");
    switch (header.type) {
      case "x":
      case "g":
      case "L":
      case "K":
        if (header.size > MAX_EXTENSION) {
          throw new TarError("archive/tar: header field too long");
        }
        this.#extension = header.type;
        this.#state = header.size > 0 ? "extension" : "header";
        this.#wanted = header.size > 0 ? header.size : BLOCK;
        return;
      default:
        this.#startEntry(header);
    }
  }

  #endExtension(body: Buffer): void {
    this.#state = "header";
    this.#skip = padding(body.length);
    switch (this.#extension) {
      case "x":
        this.#pax = decodePax(body);
        return;
      case "L":
        this.#longName = untilZero(body);
        return;
      case "K":
        this.#longLink = untilZero(body);
        return;
      default:
      // Global PAX headers are ignored, as Docker does.
    }
  }

  #startEntry(header: TarHeader): void {
    const entry = this.#applyExtensions(header);
    // Of what has no contents, the size says nothing.
    const contents = header.type === "0" || header.type === "\0";
    const size = contents ? entry.size : 0;
    if (entry.type !== "0") entry.size = 0;
    this.#bodyKept = this.#handler.entry(entry);
    if (size === 0) return;
    this.#state = "body";
    this.#bodyLeft = size;
    this.#bodyPadding = padding(size);
  }

  #endBody(): void {
    this.#state = "header";
    this.#skip = this.#bodyPadding;
    if (this.#bodyKept) this.#handler.bodyEnd();
  }

  #applyExtensions(header: TarHeader): TarEntry {
    const pax = this.#pax;
    const entry: TarEntry = {
      type: header.type,
      name: this.#longName ?? header.name,
      linkName: this.#longLink ?? header.linkName,
      mode: header.mode & 0o7777,
      uid: header.uid,
      gid: header.gid,
      size: header.size,
      mtime: header.mtime,
      mtimeNanoseconds: 0,
      deviceMajor: header.deviceMajor,
      deviceMinor: header.deviceMinor,
      xattrs: NO_XATTRS,
    };
    this.#pax = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;
    if (pax !== undefined) applyPax(entry, pax);
    // Old archives mark directories by a trailing slash only.
    if (entry.type === "\0") entry.type = entry.name.endsWith("/") ? "5" : "0";
    if (entry.mtime < 0) {
      entry.mtime = 0;
      entry.mtimeNanoseconds = 0;
    }
    checkId(entry, "uid");
    checkId(entry, "gid");
    return entry;
  }
}

/** @throws {TarError} no such user or group can be */
function checkId(entry: TarEntry, field: "uid" | "gid"): void {
  const id = entry[field];
  if (id < 0 || id > MAX_ID) {
    throw new TarError(`${show(entry.name)}: ${field} ${id} out of range`);
  }
}

const XATTR = "SCHILY.xattr.";
/** Namespaces an image may use; overlayfs's own attributes would let it redirect into other layers. */
const XATTR_ALLOWED =
  /^(?:user\.|security\.|trusted\.(?!overlay\.)|system\.posix_acl_(?:access|default)$)/;

function applyPax(entry: TarEntry, pax: Map<string, string>): void {
  const xattrs = new Map<string, string>();
  for (const [key, value] of pax) {
    if (key.startsWith("GNU.sparse.")) {
      throw new TarError(`${show(entry.name)}: sparse files are not supported`);
    }
    if (key.startsWith(XATTR)) {
      const name = key.slice(XATTR.length);
      if (name.length <= MAX_NAME && XATTR_ALLOWED.test(name)) {
        xattrs.set(name, value);
      }
      continue;
    }
    if (value === "") continue;
    switch (key) {
      case "path":
        entry.name = value;
        break;
      case "linkpath":
        entry.linkName = value;
        break;
      case "size":
      case "uid":
      case "gid":
        if (!/^[0-9]{1,15}$/.test(value)) {
          throw new TarError(`archive/tar: invalid ${key} in PAX record`);
        }
        entry[key] = Number(value);
        break;
      case "mtime": {
        const match = /^(-?[0-9]{1,15})(?:\.([0-9]*))?$/.exec(value);
        if (match === null) {
          throw new TarError("archive/tar: invalid mtime in PAX record");
        }
        entry.mtime = Number(match[1]);
        entry.mtimeNanoseconds = Number(
          (match[2] ?? "").padEnd(9, "0").slice(0, 9),
        );
        break;
      }
      default:
    }
  }
  entry.xattrs = xattrs;
}

function untilZero(body: Buffer): string {
  const zero = body.indexOf(0);
  return body.toString("latin1", 0, zero < 0 ? body.length : zero);
}
