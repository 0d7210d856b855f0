/** What a daemon that was killed in the middle of a write leaves in the data root. */
import { readdir, rm } from "node:fs/promises";
import path from "node:path";

/** How write-file-atomic names a file until it is whole and takes its place. */
const HALF_WRITTEN = /\.json\.\d+$/;
/** Empty disks on their way, see containers/writable-disk.ts. */
const HALF_MADE = /\.img\.tmp$/;

/** Folders with records, below the data root. Not those in which users' files lie. */
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
  const containers = (await names(path.join(dataRoot, "containers"))).map(
    (name) => path.join("containers", name),
  );
  let removed = 0;
  for (const folder of [...FOLDERS, ...containers]) {
    for (const name of await names(path.join(dataRoot, folder))) {
      if (!HALF_WRITTEN.test(name) && !HALF_MADE.test(name)) continue;
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
