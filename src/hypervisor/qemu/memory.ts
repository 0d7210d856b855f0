import { readFileSync } from "node:fs";
import { InvalidParameter, Unavailable } from "../../errors.js";

const MiB = 1024 * 1024;
/** The least memory in which kernel and agent come up, in MiB. */
export const MINIMUM_MIB = 64;

/**
 * A machine's memory in whole MiB.
 * @throws {InvalidParameter} too little to boot
 */
export function memoryMiB(bytes: number): number {
  const size = Math.ceil(bytes / MiB);
  if (!(size >= MINIMUM_MIB)) {
    throw new InvalidParameter(
      `a machine needs at least ${MINIMUM_MIB} MiB of memory, not ${bytes} bytes`,
    );
  }
  return size;
}

/**
 * Refuses a machine that the host could not fill now. Machines together may have more than the host
 * has: memory is only taken when a guest uses it.
 * @throws {Unavailable} "cannot allocate memory: …"
 */
export function checkHostMemory(neededMiB: number): void {
  const available = availableMiB(meminfo());
  if (available !== undefined && neededMiB > available) {
    throw new Unavailable(
      `cannot allocate memory: the machine needs ${neededMiB} MiB, the host has ${available} MiB available`,
    );
  }
}

/** At once: the kernel has it at hand, and each start waits for it. */
function meminfo(): string {
  return readFileSync("/proc/meminfo", "utf8");
}

/** MemAvailable of /proc/meminfo, in MiB. */
export function availableMiB(meminfo: string): number | undefined {
  const kib = /^MemAvailable:\s*(\d+) kB$/m.exec(meminfo)?.[1];
  return kib === undefined ? undefined : Math.floor(Number(kib) / 1024);
}

/** How much of the host's memory is available: 0 to 1. 1 where that cannot be found out. */
export function availableShare(): number {
  const text = meminfo();
  const available = availableMiB(text);
  const total = /^MemTotal:\s*(\d+) kB$/m.exec(text)?.[1];
  if (available === undefined || total === undefined) return 1;
  return (available * 1024) / Number(total);
}
