/**
 * The headers that most of an archive consists of, of files and folders without anything special: read and written
 * where they lie in a buffer. Everything else is for tar-format.ts, whose strings cost many times as much.
 */
import type { Bytes } from "../sys.js";
import {
  BLOCK,
  CHECKSUM,
  MAX_NAME,
  TarType,
  blankEntry,
  type TarEntry,
} from "./tar-format.js";

const TYPE = 156;
const LINK = 157;
const MAGIC = 257;
const PREFIX = 345;
const MAGIC_AND_VERSION: Bytes = "ustar\x0000";
/** Mode, uid, gid, size, time, major, minor. */
const WRITTEN = new Uint16Array([
  ...[100, 7, 108, 7, 116, 7, 124, 11, 136, 11, 329, 7, 337, 7],
]).buffer;
const CHECKSUM_WRITTEN = new Uint16Array([CHECKSUM.at, 6]).buffer;
/** Mode, uid, gid, size, time, checksum, major, minor: see `Tree.octals`. */
const READ = new Uint16Array([
  ...[100, 8, 108, 8, 116, 8, 124, 12, 136, 12],
  ...[CHECKSUM.at, CHECKSUM.length, 329, 8, 337, 8],
]).buffer;

export class PlainHeaders {
  private readonly bytes: Uint8Array;
  private readonly numbers = new Float64Array(READ.byteLength / 4);
  private readonly entry = blankEntry();

  constructor(private readonly buffer: ArrayBuffer) {
    this.bytes = new Uint8Array(buffer);
  }

  /**
   * The entry of the header at `at`, in an object that is used again; undefined for one that is not plain, or not
   * right.
   * @param sum of the block's bytes
   */
  read(at: number, sum: number): TarEntry | undefined {
    const { buffer, bytes, numbers, entry } = this;
    const type = bytes[at + TYPE];
    if (type !== 0x30 && type !== 0x35) return undefined;
    if (bytes[at + PREFIX] !== 0) return undefined;
    const magic = sys.textBefore0(buffer, at + MAGIC, 6);
    if (magic !== "ustar" && magic !== "ustar ") return undefined;
    sys.octals(buffer, at, READ, numbers.buffer);
    const blank = CHECKSUM.length * 0x20;
    const written = sys.sum(buffer, at + CHECKSUM.at, CHECKSUM.length);
    if (numbers[5] !== sum - written + blank) return undefined;
    entry.mode = (numbers[0] as number) & 0o7777;
    entry.uid = numbers[1] as number;
    entry.gid = numbers[2] as number;
    entry.size = numbers[3] as number;
    entry.seconds = numbers[4] as number;
    if (
      (numbers[0] as number) < 0 ||
      entry.uid < 0 ||
      entry.gid < 0 ||
      entry.size < 0 ||
      entry.seconds < 0 ||
      (numbers[6] as number) < 0 ||
      (numbers[7] as number) < 0
    )
      return undefined;
    entry.type = type === 0x30 ? TarType.File : TarType.Directory;
    entry.name = sys.textBefore0(buffer, at, MAX_NAME);
    return entry;
  }

  /** Writes a header of BLOCK bytes at `at`; the entry needs no extended one. */
  write(entry: TarEntry, at: number): void {
    const { buffer, bytes, numbers } = this;
    sys.fill(buffer, at, BLOCK, 0);
    sys.textToBytes(entry.name, buffer, at);
    numbers[0] = entry.mode;
    numbers[1] = entry.uid;
    numbers[2] = entry.gid;
    numbers[3] = entry.size;
    numbers[4] = entry.seconds;
    numbers[5] = entry.major;
    numbers[6] = entry.minor;
    sys.putOctals(buffer, at, WRITTEN, numbers.buffer);
    sys.fill(buffer, at + CHECKSUM.at, CHECKSUM.length, 0x20);
    bytes[at + TYPE] = entry.type.charCodeAt(0);
    if (entry.linkname !== "")
      sys.textToBytes(entry.linkname, buffer, at + LINK);
    sys.textToBytes(MAGIC_AND_VERSION, buffer, at + MAGIC);
    numbers[0] = sys.sum(buffer, at, BLOCK);
    sys.putOctals(buffer, at, CHECKSUM_WRITTEN, numbers.buffer);
    bytes[at + CHECKSUM.at + 6] = 0;
  }
}
