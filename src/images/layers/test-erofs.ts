/** For tests: the file system maker that was built here or is installed, and a look into its images. */
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { Disk } from "../../hypervisor/index.js";
import { Erofs } from "./erofs.js";

/** Where tests look for mkfs.erofs. */
export const MKFS_CANDIDATES = [
  join(import.meta.dirname, "../../../build/tools/mkfs.erofs"),
  "mkfs.erofs",
];

/** Why tests that make file systems cannot run here; false when they can. */
export const noErofs: string | false = await Erofs.find(MKFS_CANDIDATES).then(
  () => false,
  (error: Error) => error.message,
);

/** A folder that goes with the test. */
export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "hull-images-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * Mounts a disk as a guest would see it and runs something on it; the test alone may mount, and only
 * what it made itself.
 * @returns undefined when this host does not let us mount
 */
export async function mounted<T>(
  t: TestContext,
  disk: Disk,
  look: (root: string) => Promise<T>,
): Promise<T | undefined> {
  const folder = await temporaryFolder(t);
  const flat = join(folder, "flat.img");
  const parts = await Promise.all(disk.parts.map(({ path }) => readFile(path)));
  await writeFile(flat, Buffer.concat(parts));
  const root = await mkdtemp(join(folder, "mnt-"));
  try {
    execFileSync("mount", ["-t", "erofs", "-o", "loop,ro", flat, root], {
      stdio: "pipe",
    });
  } catch (error) {
    t.diagnostic(`not looked into: ${(error as Error).message.trim()}`);
    return undefined;
  }
  try {
    return await look(root);
  } finally {
    execFileSync("umount", [root]);
  }
}
