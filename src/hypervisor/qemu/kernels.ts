/** Guest kernels beside the daemon's own, which a container may ask for by name. */
import { open } from "node:fs/promises";
import { InvalidParameter, Unavailable } from "../../errors.js";

export interface NamedKernel {
  path: string;
  /** What its command line gets beside hull's own. */
  parameters: string;
}

const X86_64 = 62;
const PT_NOTE = 4;
/** XEN_ELFNOTE_PHYS32_ENTRY: where a PVH kernel is entered. */
const PVH_ENTRY = 18;
const HEADER_BYTES = 64;
const MAX_SEGMENTS = 64;
const MAX_NOTES = 64 * 1024;

/** @throws {InvalidParameter} there is none of that name */
export function namedKernel(
  kernels: Readonly<Record<string, NamedKernel>>,
  name: string,
): NamedKernel {
  const kernel = Object.hasOwn(kernels, name) ? kernels[name] : undefined;
  if (!kernel) throw new InvalidParameter(`no guest kernel is named "${name}"`);
  return kernel;
}

/**
 * Looks whether a file is a kernel that QEMU can enter by PVH: a 64-bit ELF file of x86 with Xen's note of the
 * entry point.
 * @throws {Unavailable} it cannot be read, or is none
 */
export async function checkPvhKernel(path: string): Promise<void> {
  const file = await open(path, "r").catch((error: Error) => {
    throw new Unavailable(`the guest kernel cannot be read: ${error.message}`);
  });
  const read = async (length: number, position: number) => {
    const { buffer, bytesRead } = await file.read({
      buffer: Buffer.alloc(length),
      position,
    });
    return buffer.subarray(0, bytesRead);
  };
  try {
    const header = await read(HEADER_BYTES, 0);
    if (
      header.length < HEADER_BYTES ||
      header.toString("latin1", 0, 5) !== "\x7fELF\x02" ||
      header.readUInt16LE(18) !== X86_64
    ) {
      throw notPvh(path, "it is no 64-bit ELF file of x86");
    }
    const size = header.readUInt16LE(54);
    const count = Math.min(header.readUInt16LE(56), MAX_SEGMENTS);
    const table = await read(size * count, Number(header.readBigUInt64LE(32)));
    for (let at = 0; at + 40 <= table.length && size >= 56; at += size) {
      if (table.readUInt32LE(at) !== PT_NOTE) continue;
      const offset = Number(table.readBigUInt64LE(at + 8));
      const length = Number(table.readBigUInt64LE(at + 32));
      const notes = await read(Math.min(length, MAX_NOTES), offset);
      if (hasPvhEntry(notes)) return;
    }
    throw notPvh(path, "it has no PVH entry point (CONFIG_PVH)");
  } finally {
    await file.close();
  }
}

/** Notes: sizes of name and content, type, both padded to 4 bytes. */
function hasPvhEntry(notes: Buffer): boolean {
  for (let at = 0; at + 12 <= notes.length;) {
    const nameSize = notes.readUInt32LE(at);
    const contentSize = notes.readUInt32LE(at + 4);
    const name = notes.toString("latin1", at + 12, at + 12 + nameSize);
    if (name === "Xen\0" && notes.readUInt32LE(at + 8) === PVH_ENTRY)
      return true;
    at += 12 + padded(nameSize) + padded(contentSize);
  }
  return false;
}

function padded(size: number): number {
  return Math.ceil(size / 4) * 4;
}

function notPvh(path: string, why: string): Unavailable {
  return new Unavailable(`the guest kernel ${path} cannot be booted: ${why}`);
}
