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
  encodeEntry,
  NO_XATTRS,
  padding,
  show,
  TarError,
  type TarEntry,
} from "./tar-header.js";
import { TarReader } from "./tar-reader.js";

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
const MAX_PATH = 4095;
const MAX_NAME = 255;
/** EROFS stores a value's length in 16 bits. */
const MAX_XATTR_BYTES = 65_535;

const WHITEOUT_PREFIX = ".wh.";
const WHITEOUT_META_PREFIX = ".wh..wh.";
const OPAQUE = ".wh..wh..opq";

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

  readonly #reader: TarReader;
  /** Zeros that end the body now passing by. */
  #padding = 0;
  #output: Buffer[] = [];

  constructor(limits: LayerLimits = DEFAULT_LIMITS) {
    super({ highWaterMark: 512 * 1024 });
    this.#limits = limits;
    this.#reader = new TarReader({
      entry: (entry) => this.#entry(entry),
      body: (piece) => this.#output.push(piece),
      bodyEnd: () => {
        if (this.#padding > 0) this.#output.push(Buffer.alloc(this.#padding));
      },
    });
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
      this.#reader.consume(chunk);
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
    try {
      this.#reader.end();
    } catch (error) {
      callback(error as Error);
      return;
    }
    callback(null, Buffer.alloc(2 * BLOCK));
  }

  #entry(entry: TarEntry): boolean {
    if (++this.entries > this.#limits.entries) {
      throw new TarError(`layer has more than ${this.#limits.entries} entries`);
    }
    const kept = this.#place(entry);
    if (kept) {
      this.contentBytes += entry.size;
      this.#padding = padding(entry.size);
    }
    return kept;
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

function isMetadata(part: string): boolean {
  return part.startsWith(WHITEOUT_META_PREFIX);
}
