/** Writes a tar archive to a blocking pipe. */
import type { Bytes } from "../sys.js";
import {
  BLOCK,
  CHECKSUM,
  checksumField,
  encodeEntry,
  needsPax,
  type TarEntry,
} from "./tar-format.js";
import { writeAll } from "../files.js";
import { PlainHeaders } from "./plain-header.js";

const BUFFER = 256 * 1024;
/** Content up to this size is copied with its header; more goes from file to pipe in the kernel. */
const SMALL = 32 * 1024;

export class TarWriter {
  private readonly buffer = sys.allocate(BUFFER);
  private readonly headers = new PlainHeaders(this.buffer);
  private end = 0;

  /** @param fd a pipe */
  constructor(private readonly fd: number) {}

  /** An entry's header. The caller writes `size` bytes of content next, if it is a file. */
  entry(entry: TarEntry): void {
    if (!needsPax(entry)) {
      this.makeRoom(BLOCK);
      this.headers.write(entry, this.end);
      this.end += BLOCK;
      return;
    }
    for (const block of encodeEntry(entry)) {
      this.makeRoom(block.length);
      const at = this.end;
      this.put(block);
      if (block.length === BLOCK && block.slice(257, 262) === "ustar")
        this.seal(at);
    }
  }

  /** `size` bytes of an open file; what the file has too little is zeros. */
  content(source: number, size: number): void {
    let left = size;
    if (size > SMALL) {
      this.flush();
      while (left > 0) {
        const count = sys.sendfile(this.fd, source, Math.min(left, 1 << 20));
        if (count === 0) break;
        left -= count;
      }
    }
    while (left > 0) {
      this.makeRoom(Math.min(left, SMALL));
      const count = sys.read(
        source,
        this.buffer,
        this.end,
        Math.min(left, BUFFER - this.end),
      );
      if (count <= 0) break;
      this.end += count;
      left -= count;
    }
    this.zeros(left + padding(size));
  }

  /** The end of the archive. */
  finish(): void {
    this.zeros(2 * BLOCK);
    this.flush();
  }

  private seal(at: number): void {
    const sum = sys.sum(this.buffer, at, BLOCK);
    sys.textToBytes(checksumField(sum), this.buffer, at + CHECKSUM.at);
  }

  private put(text: Bytes): void {
    this.end += sys.textToBytes(text, this.buffer, this.end);
  }

  private zeros(count: number): void {
    for (let left = count; left > 0;) {
      if (BUFFER - this.end < Math.min(left, BLOCK)) this.flush();
      const piece = Math.min(left, BUFFER - this.end);
      sys.fill(this.buffer, this.end, piece, 0);
      this.end += piece;
      left -= piece;
    }
  }

  /** @throws {RangeError} more than a buffer is asked for */
  private makeRoom(length: number): void {
    if (BUFFER - this.end < length) this.flush();
    if (length > BUFFER) throw new RangeError("header too long");
  }

  private flush(): void {
    writeAll(this.fd, this.buffer, 0, this.end);
    this.end = 0;
  }
}

function padding(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}
