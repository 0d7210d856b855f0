/**
 * What kinds of machines there are. Everything a container may differ in comes later (disks, shares,
 * network, names); a shape is what must be right from a machine's first instruction on, and each has a
 * template of its own, so that they are few.
 */
import { z } from "zod";
import { InvalidParameter } from "../../errors.js";
import type { MachineSize } from "../index.js";
import { memoryMiB } from "./memory.js";

/** What the guest kernel is built for (CONFIG_NR_CPUS). */
const MAX_VCPUS = 64;
/** The smallest class of memory, in MiB. */
const SMALLEST_CLASS = 64;

export interface MachineShape {
  memoryMiB: number;
  vcpus: number;
  /** `user`: the first NIC is QEMU's user mode, and the others lead nowhere. */
  nics: "tap" | "user";
  /** Name of the guest kernel; absent: the daemon's own. */
  kernel?: string | undefined;
}

/** A shape as it was written into a record. */
export const shapeSchema: z.ZodType<MachineShape> = z.object({
  memoryMiB: z.int().positive(),
  vcpus: z.int().positive(),
  nics: z.enum(["tap", "user"]),
  kernel: z.string().optional(),
});

/** @throws {InvalidParameter} a size that no machine can have */
export function shapeOf(
  size: MachineSize,
  nics: MachineShape["nics"],
): MachineShape {
  const { vcpus } = size;
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > MAX_VCPUS) {
    throw new InvalidParameter(
      `a machine has 1 to ${MAX_VCPUS} virtual CPUs, not ${vcpus}`,
    );
  }
  return {
    memoryMiB: memoryClass(memoryMiB(size.memoryBytes)),
    vcpus,
    nics,
    ...(size.kernel !== undefined && { kernel: size.kernel }),
  };
}

/** Rounds up to 64, 96, 128, 192, 256, 384 … MiB: at most half as much again as was asked for. */
export function memoryClass(mib: number): number {
  let power = SMALLEST_CLASS;
  while (power * 2 < mib) power *= 2;
  return [power, power * 1.5, power * 2].find((size) => size >= mib) ?? mib;
}

/** A shape in a word, for names and log lines: "512m-1cpu-tap". */
export function shapeName(shape: MachineShape): string {
  const { memoryMiB, vcpus, nics, kernel } = shape;
  const name = `${memoryMiB}m-${vcpus}cpu-${nics}`;
  return kernel === undefined ? name : `${name}-${kernel}`;
}
