import { InvalidParameter } from "../../errors.js";
import type { Disk } from "../index.js";

const SECTOR = 512;
/** Each part begins at a multiple of this: the block size of the file systems in the parts. */
const ALIGNMENT = 4096;

/**
 * A VMDK descriptor that joins files into one read-only disk (VMware's "Virtual Disk Format 5.0", flat
 * extents). QEMU reads zeros between the end of a file and the end of its extent, so every part is
 * rounded up to ALIGNMENT.
 *
 * There is no empty line in it: QEMU would take the extent that follows one twice.
 * @throws {InvalidParameter} a path QEMU cannot read from a descriptor, or a size that is no multiple of 512
 */
export function vmdkDescriptor(parts: Disk["parts"]): string {
  const lines = [
    "# Disk DescriptorFile",
    "version=1",
    "CID=fffffffe",
    "parentCID=ffffffff",
    'createType="monolithicFlat"',
  ];
  for (const { path, bytes } of parts) {
    if (!path.startsWith("/") || /["\r\n]/.test(path) || path.length > 511) {
      throw new InvalidParameter(
        `a disk's part cannot have the path ${JSON.stringify(path)}`,
      );
    }
    if (bytes <= 0 || bytes % SECTOR !== 0) {
      throw new InvalidParameter(
        `the disk part ${path} has ${bytes} bytes, which is no multiple of ${SECTOR}`,
      );
    }
    const sectors = (Math.ceil(bytes / ALIGNMENT) * ALIGNMENT) / SECTOR;
    lines.push(`RW ${sectors} FLAT "${path}" 0`);
  }
  return lines.join("\n") + "\n";
}
