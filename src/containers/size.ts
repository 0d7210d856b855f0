/** How much a container has written, and how large its root is (`ps -s`, `inspect -s`). */
import { stat } from "node:fs/promises";
import type { ImageSource } from "../images/index.js";
import type { Container } from "./container.js";
import { sampleUsage } from "./usage.js";

export interface ContainerSize {
  SizeRw: number;
  SizeRootFs: number;
}

/**
 * In bytes. A guest that runs counts its files; of a stopped one it is what its disk takes of the host,
 * since nobody reads a disk that a guest wrote.
 */
export async function sizeOf(
  container: Container,
  images: ImageSource,
): Promise<ContainerSize> {
  const usage = (await sampleUsage(container))?.usage;
  const written =
    usage?.diskBytes ?? (await allocatedBytes(container.writableDisk));
  const { parts } = await images.disk(container.record.imageId);
  const image = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  return { SizeRw: written, SizeRootFs: image + written };
}

/** Bytes a sparse file takes; 0 when it is not there (yet, or any more). */
export async function allocatedBytes(file: string): Promise<number> {
  try {
    return (await stat(file)).blocks * 512;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw error;
  }
}
