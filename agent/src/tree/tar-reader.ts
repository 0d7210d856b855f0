/** Reads a tar archive from a blocking pipe, whoever wrote it. */
import { writeAll } from "../files.js";
import { isSysError, type Bytes } from "../sys.js";
import { PlainHeaders } from "./plain-header.js";
import {
  BLOCK,
  TarError,
  decodeHeader,
  decodePax,
  entryOf,
  type TarEntry,
} from "./tar-format.js";

const BUFFER = 256 * 1024;
/** Content that is longer goes from the pipe to the file in the kernel. */
const LONG = 64 * 1024;
/** Largest extended header that is read. */
const MAX_EXTENDED = 1024 * 1024;

export class TarReader {
  private readonly buffer = sys.allocate(BUFFER);
  private readonly headers = new PlainHeaders(this.buffer);
  private begin = 0;
  private end = 0;
  /** Content and padding of the current entry that were not read yet. */
  private contentLeft = 0;
  private paddingLeft = 0;

  /** @param fd a pipe */
  constructor(private readonly fd: number) {}

  /**
   * The next entry, which is valid until the one after it is asked for; undefined at the archive's end. Content
   * of the last one that is left is skipped.
   */
  next(): TarEntry | undefined {
    let pax: Map<string, Bytes> | undefined;
    for (;;) {
      this.skip(this.contentLeft + this.paddingLeft);
      this.contentLeft = this.paddingLeft = 0;
      if (!this.fill(BLOCK)) {
        if (this.begin === this.end) return undefined;
        throw new TarError("unexpected EOF");
      }
      const sum = sys.sum(this.buffer, this.begin, BLOCK);
      const at = this.begin;
      this.begin += BLOCK;
      // One block of zeros is enough of an end.
      if (sum === 0) return undefined;
      const plain = pax ? undefined : this.headers.read(at, sum);
      if (plain) return this.begun(plain);
      pax ??= new Map<string, Bytes>();
      const block = sys.bytesToText(this.buffer, at, BLOCK);
      const raw = decodeHeader(block, sum);
      if (raw.size < 0)
        throw new TarError("archive/tar: invalid tar header: size");
      if (raw.type === "g" || "xLK".includes(raw.type)) {
        const text = this.extended(raw.size);
        const records = pax;
        if (raw.type === "x")
          decodePax(text).forEach((value, key) => records.set(key, value));
        else if (raw.type === "L") pax.set("path", withoutEnd(text));
        else if (raw.type === "K") pax.set("linkpath", withoutEnd(text));
        // A global header holds what git writes there: a comment.
        continue;
      }
      const entry = entryOf(raw, pax);
      if (entry.size < 0)
        throw new TarError("archive/tar: invalid tar header: size");
      return this.begun(entry);
    }
  }

  private begun(entry: TarEntry): TarEntry {
    // Only files have content, except that old archives say a link's size without having it.
    this.contentLeft = entry.type === "0" ? entry.size : 0;
    this.paddingLeft = padding(this.contentLeft);
    return entry;
  }

  /** Writes the content of the current entry to an open file. */
  copyContent(target: number): void {
    while (this.contentLeft > 0) {
      if (this.begin === this.end) {
        if (this.contentLeft > LONG && this.move(target)) continue;
        if (!this.fill(1)) throw new TarError("unexpected EOF");
      }
      const piece = Math.min(this.contentLeft, this.end - this.begin);
      writeAll(target, this.buffer, this.begin, this.begin + piece);
      this.begin += piece;
      this.contentLeft -= piece;
    }
  }

  /** Reads what follows the archive's end, so that its writer is not cut off. */
  drain(): void {
    do this.begin = this.end;
    while (this.fill(1));
  }

  /** Moves content from the pipe to a file without reading it; false where the file's kind cannot take it. */
  private move(target: number): boolean {
    try {
      const count = sys.splice(this.fd, target, this.contentLeft);
      if (count === 0) throw new TarError("unexpected EOF");
      this.contentLeft -= count;
      return true;
    } catch (error) {
      if (isSysError(error) && error.errno === "EINVAL") return false;
      throw error;
    }
  }

  private extended(size: number): Bytes {
    if (size > MAX_EXTENDED)
      throw new TarError("archive/tar: extended header too long");
    let text = "";
    let left = size;
    while (left > 0) {
      if (this.begin === this.end && !this.fill(1))
        throw new TarError("unexpected EOF");
      const piece = Math.min(left, this.end - this.begin);
      text += sys.bytesToText(this.buffer, this.begin, piece);
      this.begin += piece;
      left -= piece;
    }
    this.skip(padding(size));
    return text;
  }

  private skip(count: number): void {
    for (let left = count; left > 0;) {
      if (this.begin === this.end && !this.fill(1))
        throw new TarError("unexpected EOF");
      const piece = Math.min(left, this.end - this.begin);
      this.begin += piece;
      left -= piece;
    }
  }

  /** Sees to it that at least `wanted` bytes are in the buffer; false when the input ends before. */
  private fill(wanted: number): boolean {
    if (this.end - this.begin >= wanted) return true;
    if (this.begin === this.end) this.begin = this.end = 0;
    else if (BUFFER - this.begin < wanted) {
      const kept = this.end - this.begin;
      sys.copy(this.buffer, this.begin, kept, this.buffer, 0);
      this.begin = 0;
      this.end = kept;
    }
    while (this.end - this.begin < wanted) {
      const count = sys.read(this.fd, this.buffer, this.end, BUFFER - this.end);
      if (count === 0) return false;
      if (count > 0) this.end += count;
    }
    return true;
  }
}

function withoutEnd(text: Bytes): Bytes {
  const end = text.indexOf("\0");
  return end < 0 ? text : text.slice(0, end);
}

function padding(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}
