/** Machines of the warm pool that have what the next container is likely to need; see furnish.ts. */
import { rename, stat } from "node:fs/promises";
import { SystemError } from "../../errors.js";
import type { Disks, Furnishing, MachineSpec } from "../index.js";

/** What a machine has been given ahead. */
export interface Furnished {
  furnishing: Furnishing;
  /** Path of the blank disk; it becomes the container's. */
  blank: string;
}

/** Whether a machine furnished by one serves who wishes for the other, whatever its program is. */
export function isSame(a: Disks, b: Disks): boolean {
  const key = ({ image, blankBytes }: Disks) =>
    JSON.stringify([blankBytes, image.parts]);
  return key(a) === key(b);
}

/** Whether the image has been removed: its files would stay on the disk as long as a machine has them open. */
export async function isGone({ image }: Furnishing): Promise<boolean> {
  const found = await Promise.all(
    image.parts.map(({ path }) => stat(path).catch(() => undefined)),
  );
  return found.includes(undefined);
}

/**
 * Checks that the machine is furnished for the container.
 * @returns makes the blank disk the container's
 * @throws {SystemError} it is furnished for another container
 */
export function giver(
  { furnishing, blank }: Furnished,
  { disks }: MachineSpec,
): () => Promise<void> {
  const [image, writable] = disks;
  const own = writable?.parts[0];
  if (
    !image ||
    !own ||
    disks.length !== 2 ||
    !isSame(furnishing, { image, blankBytes: own.bytes })
  ) {
    throw new SystemError("the machine is furnished for another container");
  }
  return () => rename(blank, own.path);
}
