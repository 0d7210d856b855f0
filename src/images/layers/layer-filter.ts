import { Transform, type TransformCallback } from "node:stream";
import {
  type Directory,
  directory,
  isDirectory,
  LEAF,
  type Node,
  type Place,
  split,
  walk,
  WHITEOUT,
} from "./layer-tree.js";
import {
  BLOCK,
  decodeHeader,
  decodePax,
  encodeEntry,
  padding,
  TarError,
  type TarEntry,
  type TarHeader,
} from "./tar-header.js";

/** What a layer may cost at most. A layer beyond is refused. */
export interface LayerLimits {
  /** Entries of the archive. */
  entries: number;
  /** Entries of one directory: file system makers search them one by one. */
  directoryEntries: number;
  /** Bytes of the uncompressed archive. */
  bytes: number;
  /** Bytes of all names and extended attributes. */
  metadataBytes: number;
  /** Directories one below the other. */
  depth: number;
}

export const DEFAULT_LIMITS: LayerLimits = {
  entries: 1_000_000,
  directoryEntries: 100_000,
  bytes: 64 * 2 ** 30,
  metadataBytes: 256 * 2 ** 20,
  depth: 256,
};

/** Pieces from this size on are passed on without a copy. */
const LARGE_PIECE = 32 * 1024;
/** The longest PAX header or GNU long name. */
const MAX_EXTENSION = 2 ** 20;
const MAX_PATH = 4095;
const MAX_NAME = 255;
/** EROFS stores a value's length in 16 bits. */
const MAX_XATTR_BYTES = 65_535;
const MAX_ID = 2 ** 32 - 2;

const WHITEOUT_PREFIX = ".wh.";
const WHITEOUT_META_PREFIX = ".wh..wh.";
const OPAQUE = ".wh..wh..opq";

const NO_XATTRS: ReadonlyMap<string, string> = new Map();

/** Attributes of a directory a layer uses without bringing it. */
const IMPLIED = {
  type: "5",
  linkName: "",
  mode: 0o755,
  uid: 0,
  gid: 0,
  size: 0,
  mtimeNanoseconds: 0,
  deviceMajor: 0,
  deviceMinor: 0,
  xattrs: NO_XATTRS,
};

/**
 * Turns a layer's archive, which anybody may have written, into one that only says what a layer may
 * say, in one strict form: canonical names inside the root, every parent before its children, hard
 * links only to what the layer itself brought, known entry types, sane numbers, AUFS whiteouts.
 * A layer that cannot be turned is refused with a {@link TarError}.
 */
export class LayerFilter extends Transform {
  /** Bytes of file contents, as Docker counts a layer's size. */
  contentBytes = 0;
  entries = 0;
  /** The layer hides everything below it. */
  opaqueRoot = false;

  readonly #limits: LayerLimits;
  readonly #root: Directory = directory();
  #bytes = 0;
  #metadataBytes = 0;

  #state: "header" | "extension" | "body" | "end" = "header";
  /** Bytes collected of a header or extension. */
  #collected: Buffer[] = [];
  #wanted = BLOCK;
  /** Of the entry whose body passes by. */
  #bodyLeft = 0;
  #bodyPadding = 0;
  #bodyKept = false;
  /** Zeros (of the input) to be skipped. */
  #skip = 0;
  #zeroBlocks = 0;
  #extension = "";
  #pax: Map<string, string> | undefined;
  #longName: string | undefined;
  #longLink: string | undefined;
  #output: Buffer[] = [];

  constructor(limits: LayerLimits = DEFAULT_LIMITS) {
    super({ highWaterMark: 512 * 1024 });
    this.#limits = limits;
  }

  override _transform(
    chunk: Buffer,
    _encoding: BufferEncoding,
    callback: TransformCallback,
  ): void {
    try {
      this.#bytes += chunk.length;
      if (this.#bytes > this.#limits.bytes) {
        throw new TarError(`layer is larger than ${this.#limits.bytes} bytes`);
      }
      this.#consume(chunk);
    } catch (error) {
      callback(error as Error);
      return;
    }
    this.#send();
    callback();
  }

  /** Small pieces are joined: three writes for each of a layer's many small files would be slow. */
  #send(): void {
    let small: Buffer[] = [];
    const join = (): void => {
      if (small.length > 0) this.push(Buffer.concat(small));
      small = [];
    };
    for (const piece of this.#output) {
      if (piece.length < LARGE_PIECE) small.push(piece);
      else {
        join();
        this.push(piece);
      }
    }
    join();
    this.#output = [];
  }

  override _flush(callback: TransformCallback): void {
    if (
      this.#bodyLeft > 0 ||
      this.#collected.length > 0 ||
      this.#state === "extension" ||
      this.#pax !== undefined ||
      this.#longName !== undefined
    ) {
      callback(new TarError("unexpected EOF"));
      return;
    }
    callback(null, Buffer.alloc(2 * BLOCK));
  }

  #consume(chunk: Buffer): void {
    let offset = 0;
    while (offset < chunk.length) {
      if (this.#state === "end") return;
      if (this.#state === "body") {
        const take = Math.min(this.#bodyLeft, chunk.length - offset);
        if (this.#bodyKept) {
          this.#output.push(chunk.subarray(offset, offset + take));
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
    if (++this.entries > this.#limits.entries) {
      throw new TarError(`layer has more than ${this.#limits.entries} entries`);
    }
    if (entry.type !== "0") entry.size = 0;
    this.#bodyKept = this.#place(entry);
    if (size === 0) return;
    this.#state = "body";
    this.#bodyLeft = size;
    this.#bodyPadding = padding(size);
    if (this.#bodyKept) this.contentBytes += size;
  }

  #endBody(): void {
    this.#state = "header";
    this.#skip = this.#bodyPadding;
    if (this.#bodyKept && this.#bodyPadding > 0) {
      this.#output.push(Buffer.alloc(this.#bodyPadding));
    }
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

  /** Decides on an entry and writes what becomes of it. @returns whether its body is wanted */
  #place(entry: TarEntry): boolean {
    this.#check(entry);
    const parts = split(entry.name);
    const base = parts.pop();
    if (base === undefined) {
      if (entry.type !== "5") {
        throw new TarError("the root of a layer must be a directory");
      }
      this.#write(entry, []);
      return false;
    }
    if (entry.name.includes(WHITEOUT_PREFIX)) {
      // What AUFS kept for itself; Docker skips it too.
      if (parts.some(isMetadata) || (isMetadata(base) && base !== OPAQUE)) {
        return false;
      }
      if (parts.some((part) => part.startsWith(WHITEOUT_PREFIX))) {
        throw new TarError(`${show(entry.name)}: a whiteout is no directory`);
      }
    }
    const parent = walk(this.#root, parts, (place, name, node) =>
      this.#makeImplied(place, name, node, entry),
    );
    if (base === OPAQUE) this.#makeOpaque(parent.directory, parent.path);
    else if (base.startsWith(WHITEOUT_PREFIX)) {
      this.#whiteOut(parent, base.slice(WHITEOUT_PREFIX.length), entry);
    } else return this.#add(parent, base, entry);
    return false;
  }

  #check(entry: TarEntry): void {
    const { name, linkName } = entry;
    if (name.includes("\0") || linkName.includes("\0")) {
      throw new TarError(`${show(name)}: zero byte in a name`);
    }
    if (name.length > MAX_PATH || linkName.length > MAX_PATH) {
      throw new TarError(`${show(name)}: file name too long`);
    }
    let xattrBytes = 0;
    for (const [key, value] of entry.xattrs) {
      xattrBytes += key.length + value.length;
    }
    if (xattrBytes > MAX_XATTR_BYTES) {
      throw new TarError(`${show(name)}: extended attributes too long`);
    }
    this.#metadataBytes += name.length + linkName.length + xattrBytes;
    if (this.#metadataBytes > this.#limits.metadataBytes) {
      throw new TarError(
        `layer has more than ${this.#limits.metadataBytes} bytes of names and attributes`,
      );
    }
  }

  #add(parent: Place, base: string, entry: TarEntry): boolean {
    const { children } = parent.directory;
    const path = [...parent.path, base];
    const existing = children.get(base);
    if (isDirectory(existing) && entry.type !== "5") {
      throw new TarError(
        `${show(path.join("/"))}: a directory of the same layer is in the way`,
      );
    }
    switch (entry.type) {
      case "0":
      case "6":
        this.#set(parent, base, LEAF);
        break;
      case "1":
        return this.#hardLink(parent, base, entry);
      case "2":
        if (entry.linkName === "") {
          throw new TarError(`${show(entry.name)}: empty symbolic link`);
        }
        this.#set(parent, base, { target: entry.linkName });
        break;
      case "3":
      case "4":
        if (entry.deviceMajor < 0 || entry.deviceMajor > 0xfff) {
          throw new TarError(`${show(entry.name)}: device major out of range`);
        }
        if (entry.deviceMinor < 0 || entry.deviceMinor > 0xfffff) {
          throw new TarError(`${show(entry.name)}: device minor out of range`);
        }
        if (
          entry.type === "3" &&
          entry.deviceMajor === 0 &&
          entry.deviceMinor === 0
        ) {
          // overlayfs's own whiteout.
          this.#whiteOut(parent, base, entry);
          return false;
        }
        this.#set(parent, base, LEAF);
        break;
      case "5": {
        if (isDirectory(existing)) {
          this.#write(entry, path);
          return false;
        }
        const made = directory();
        this.#set(parent, base, made);
        this.#write(entry, path);
        if (existing === WHITEOUT) this.#makeOpaque(made, path);
        return false;
      }
      default:
        throw new TarError(
          `${show(entry.name)}: unhandled tar header type ${show(entry.type)}`,
        );
    }
    this.#write(entry, path);
    return true;
  }

  #hardLink(parent: Place, base: string, entry: TarEntry): boolean {
    const parts = split(entry.linkName);
    const targetBase = parts.pop();
    const absent = (): never => {
      throw new TarError(
        `link ${show(entry.name)}: ${show(entry.linkName)} is not a file of this layer`,
      );
    };
    if (targetBase === undefined) absent();
    const place = walk(this.#root, parts, absent);
    const target = place.directory.children.get(targetBase as string);
    if (target === undefined || target === WHITEOUT || isDirectory(target)) {
      return absent();
    }
    if (place.directory === parent.directory && targetBase === base) {
      return false;
    }
    this.#set(parent, base, target);
    this.#write(
      {
        ...entry,
        linkName: [...place.path, targetBase].join("/"),
        xattrs: NO_XATTRS,
      },
      [...parent.path, base],
    );
    return false;
  }

  #whiteOut(parent: Place, name: string, entry: TarEntry): void {
    if (name === "" || name === "." || name === "..") {
      throw new TarError(`${show(entry.name)}: invalid whiteout`);
    }
    const existing = parent.directory.children.get(name);
    if (isDirectory(existing)) {
      // The layer both removes the lower directory and brings a new one.
      this.#makeOpaque(existing, [...parent.path, name]);
    } else if (existing === undefined) {
      this.#set(parent, name, WHITEOUT);
      this.#write(
        { ...IMPLIED, type: "0", mode: 0, mtime: entry.mtime, name: "" },
        [...parent.path, WHITEOUT_PREFIX + name],
      );
    }
  }

  #makeOpaque(target: Directory, path: string[]): void {
    if (target.opaque) return;
    target.opaque = true;
    if (path.length === 0) this.opaqueRoot = true;
    else {
      this.#write({ ...IMPLIED, type: "0", mode: 0, mtime: 0, name: "" }, [
        ...path,
        OPAQUE,
      ]);
    }
  }

  #makeImplied(
    place: Place,
    name: string,
    node: Node | undefined,
    entry: TarEntry,
  ): Directory {
    const made = directory();
    const path = [...place.path, name];
    this.#set(place, name, made);
    this.#write({ ...IMPLIED, mtime: entry.mtime, name: "" }, path);
    if (node === WHITEOUT) this.#makeOpaque(made, path);
    return made;
  }

  #set(parent: Place, name: string, node: Node): void {
    const { children } = parent.directory;
    if (name.length > MAX_NAME || name.startsWith(WHITEOUT_PREFIX)) {
      throw new TarError(`${show(name)}: file name too long or reserved`);
    }
    children.set(name, node);
    if (children.size > this.#limits.directoryEntries) {
      throw new TarError(
        `a directory has more than ${this.#limits.directoryEntries} entries`,
      );
    }
  }

  #write(entry: TarEntry, path: string[]): void {
    if (path.length > this.#limits.depth) {
      throw new TarError(
        `directories are nested more than ${this.#limits.depth} deep`,
      );
    }
    const name = path.length === 0 ? "." : path.join("/");
    if (name.length > MAX_PATH) {
      throw new TarError(`${show(name)}: file name too long`);
    }
    const device = entry.type === "3" || entry.type === "4";
    this.#output.push(
      encodeEntry({
        type: entry.type,
        name,
        linkName:
          entry.type === "1" || entry.type === "2" ? entry.linkName : "",
        // Whatever the archive says, as the kernel has it.
        mode: entry.type === "2" ? 0o777 : entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        size: entry.size,
        mtime: entry.mtime,
        mtimeNanoseconds: entry.mtimeNanoseconds,
        deviceMajor: device ? entry.deviceMajor : 0,
        deviceMinor: device ? entry.deviceMinor : 0,
        xattrs: entry.xattrs,
      }),
    );
  }
}

/** @throws {TarError} no such user or group can be */
function checkId(entry: TarEntry, field: "uid" | "gid"): void {
  const id = entry[field];
  if (id < 0 || id > MAX_ID) {
    throw new TarError(`${show(entry.name)}: ${field} ${id} out of range`);
  }
}

function isMetadata(part: string): boolean {
  return part.startsWith(WHITEOUT_META_PREFIX);
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

/** A name in a message: as UTF-8, quoted, not too long. */
function show(name: string): string {
  const text = Buffer.from(name.slice(0, 200), "latin1").toString("utf8");
  return JSON.stringify(name.length > 200 ? `${text}…` : text);
}
