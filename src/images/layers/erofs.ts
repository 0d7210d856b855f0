/** Makes EROFS file systems with mkfs.erofs (erofs-utils 1.8 or later). */
import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access, open, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { Unavailable } from "../../errors.js";
import { type Child, start } from "../../archive/child.js";

const run = promisify(execFile);

/** Block size of all images; the parts of a disk are multiples of it. */
export const EROFS_BLOCK = 4096;

const SUPERBLOCK_OFFSET = 1024;
const SUPERBLOCK_MAGIC = 0xe0f5e1e2;

export class Erofs {
  /** @param program path of mkfs.erofs */
  constructor(
    readonly program: string,
    readonly version: string,
  ) {}

  /**
   * Finds a mkfs.erofs that is new enough.
   * @param candidates paths, or names looked up in PATH; the first that serves is taken
   * @throws {Unavailable} none of them does, saying what was tried
   */
  static async find(candidates: readonly string[]): Promise<Erofs> {
    const tried: string[] = [];
    for (const candidate of candidates) {
      try {
        if (candidate.includes("/")) await access(candidate, constants.X_OK);
        const { stdout } = await run(candidate, ["--version"], {
          timeout: 10_000,
        });
        const match = /(\d+)\.(\d+)(?:\.\d+)?/.exec(stdout);
        const major = Number(match?.[1] ?? 0);
        const minor = Number(match?.[2] ?? 0);
        if (major > 1 || (major === 1 && minor >= 8)) {
          return new Erofs(candidate, match?.[0] ?? "");
        }
        tried.push(`${candidate} is version ${match?.[0] ?? "unknown"}`);
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code;
        tried.push(
          `${candidate}: ${code === "ENOENT" ? "not found" : (error as Error).message}`,
        );
      }
    }
    throw new Unavailable(
      `mkfs.erofs 1.8 or later is needed to unpack images (${tried.join("; ")})`,
    );
  }

  /**
   * Starts making a layer's file system out of a strict tar archive on its stdin. File contents go
   * straight to the output in the archive's order, plain, so that a guest reads them without work and
   * merged images can refer to them.
   */
  layer(output: string, temporary: string): Child {
    return start(
      this.program,
      [
        "--tar=f",
        "--aufs",
        "--sort=none",
        "--quiet",
        "-Enoinline_data",
        output,
      ],
      // A file it could not write to the end does not always make it fail.
      { env: { TMPDIR: temporary }, silent: true },
    );
  }

  /** Makes a file system with nothing in it, for images without layers. */
  async empty(output: string): Promise<void> {
    const child = this.layer(output, dirname(output));
    child.stdout.resume();
    child.stdin.end(Buffer.alloc(1024));
    await child.done;
  }

  /**
   * Makes the file system that joins layers, lowest first: names and attributes only, with whiteouts
   * and opaque directories resolved. Its data lies in the layers, expected right behind it in the
   * order given, each as long as {@link erofsBytes} says.
   */
  async merge(output: string, layers: readonly string[]): Promise<void> {
    const child = start(
      this.program,
      ["--aufs", "--ovlfs-strip=1", "--quiet", output, ...layers],
      { silent: true },
    );
    child.stdin.end();
    child.stdout.resume();
    try {
      await child.done;
    } catch (error) {
      await rm(output, { force: true });
      throw error;
    }
  }
}

/**
 * The length an image has by its own superblock, to which the file is padded.
 * @throws the file is no EROFS image or is cut short
 */
export async function sealErofs(path: string): Promise<number> {
  const file = await open(path, "r+");
  try {
    const superblock = Buffer.alloc(128);
    await file.read(superblock, 0, superblock.length, SUPERBLOCK_OFFSET);
    if (
      superblock.readUInt32LE(0) !== SUPERBLOCK_MAGIC ||
      superblock[12] !== Math.log2(EROFS_BLOCK)
    ) {
      throw new Error(`${path} is not an EROFS image`);
    }
    const bytes = superblock.readUInt32LE(36) * EROFS_BLOCK;
    const { size } = await file.stat();
    if (size > bytes) throw new Error(`${path} is longer than it says`);
    if (size < bytes) await file.truncate(bytes);
    await file.datasync();
    return bytes;
  } finally {
    await file.close();
  }
}
