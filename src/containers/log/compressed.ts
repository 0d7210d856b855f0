/**
 * Rotated log files in gzip. `<base>.N` becomes `<base>.N.gz`, as Docker names it, by way of
 * `<base>.N.gz.tmp`: each line is in a whole file at any time. Where a killed daemon left both, they say
 * the same.
 */
import { type FileHandle, open, readdir, rename, rm } from "node:fs/promises";
import path from "node:path";
import { pipeline } from "node:stream";
import { pipeline as finished } from "node:stream/promises";
import { constants, createGunzip, createGzip } from "node:zlib";
import { syncDirectory } from "../../state-file.js";

export const COMPRESSED = ".gz";
const UNFINISHED = ".gz.tmp";
const BLOCK = 64 * 1024;
/** The next rotation waits for it, and with it the process: fast before small. */
const LEVEL = constants.Z_BEST_SPEED;

/**
 * Compresses the rotated files of a log that are not, and removes what an earlier daemon left half
 * done. Meanwhile nothing may be rotated; reading goes on.
 * @param base path of the log's newest file
 * @throws the disk refused; what is not compressed is as it was
 */
export async function compressRotated(
  base: string,
  signal: AbortSignal,
): Promise<void> {
  const names = new Set(await readdir(path.dirname(base)));
  const prefix = `${path.basename(base)}.`;
  for (const name of names) {
    if (!name.startsWith(prefix)) continue;
    const file = path.join(path.dirname(base), name);
    if (name.endsWith(UNFINISHED)) await rm(file, { force: true });
    if (!/^\d+$/.test(name.slice(prefix.length))) continue;
    if (!names.has(name + COMPRESSED)) await compress(file, signal);
    await rm(file, { force: true });
  }
}

async function compress(file: string, signal: AbortSignal): Promise<void> {
  const unfinished = file + UNFINISHED;
  const source = await open(file, "r");
  try {
    const target = await open(unfinished, "w", 0o640);
    try {
      await finished(
        blocksOf(source),
        createGzip({ level: LEVEL, chunkSize: BLOCK }),
        async (chunks: AsyncIterable<Buffer>) => {
          for await (const chunk of chunks) await target.appendFile(chunk);
        },
        { signal },
      );
      await target.sync();
    } finally {
      await target.close();
    }
    await rename(unfinished, file + COMPRESSED);
    await syncDirectory(path.dirname(file));
  } catch (error) {
    await rm(unfinished, { force: true });
    throw error;
  } finally {
    await source.close();
  }
}

/**
 * Moves a rotated file, in whichever of the two forms it is, to another number; what was there is gone.
 * Does nothing where there is none.
 */
export async function moveRotated(from: string, to: string): Promise<void> {
  for (const [form, other] of [
    ["", COMPRESSED],
    [COMPRESSED, ""],
  ] as const) {
    if (!(await exists(from + form))) continue;
    // First, for two files of one number are taken to say the same.
    await rm(to + other, { force: true });
    await rename(from + form, to + form);
    return;
  }
}

async function exists(file: string): Promise<boolean> {
  const handle = await open(file, "r").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
  });
  await handle?.close();
  return handle !== undefined;
}

/** What a compressed file holds, up to its end or to where it is damaged. */
export async function* decompressed(file: FileHandle): AsyncGenerator<Buffer> {
  const gunzip = createGunzip({ chunkSize: BLOCK });
  pipeline(blocksOf(file), gunzip, () => undefined);
  try {
    for await (const chunk of gunzip) yield chunk as Buffer;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (!code?.startsWith("Z_")) throw error;
  }
}

async function* blocksOf(file: FileHandle): AsyncGenerator<Buffer> {
  for (let position = 0; ;) {
    const block = Buffer.allocUnsafe(BLOCK);
    const { bytesRead } = await file.read(block, 0, BLOCK, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    yield block.subarray(0, bytesRead);
  }
}
