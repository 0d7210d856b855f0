/** What a daemon that was killed in the middle of a write leaves in the data root. */
import { readdir, rm } from "node:fs/promises";
import path from "node:path";
import { HALF_WRITTEN } from "../state-file.js";

/** The same of a hull whose records were written by write-file-atomic. */
const HALF_WRITTEN_BEFORE = /\.json\.\d+$/;
/** Empty disks on their way, see containers/writable-disk.ts. */
const HALF_MADE = /\.img\.tmp$/;
const STUMPS = [HALF_WRITTEN, HALF_WRITTEN_BEFORE, HALF_MADE];

/** Folders with records, below the data root; not those in which users' files lie, as `volumes/<name>/_data`. */
const FOLDERS = [
  ".",
  "blank",
  "images",
  "images/images",
  "images/layers",
  "networks",
];

/**
 * Removes records and empty disks that were not written to their end; what they were to replace is untouched. To be
 * called with the data root locked.
 * @returns how many there were
 */
export async function removeHalfWritten(dataRoot: string): Promise<number> {
  const each = async (folder: string) =>
    (await names(path.join(dataRoot, folder))).map((name) =>
      path.join(folder, name),
    );
  const own = [...(await each("containers")), ...(await each("volumes"))];
  let removed = 0;
  for (const folder of [...FOLDERS, ...own]) {
    for (const name of await names(path.join(dataRoot, folder))) {
      if (!STUMPS.some((stump) => stump.test(name))) continue;
      await rm(path.join(dataRoot, folder, name), { force: true });
      removed++;
    }
  }
  return removed;
}

async function names(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return [];
    throw error;
  }
}
