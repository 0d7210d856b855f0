/** What a machine's process takes of the host, from /proc. */
import { readFile } from "node:fs/promises";
import type { MachineCost } from "../index.js";

/** Clock ticks a second in /proc (USER_HZ). */
const TICKS = 100;

/** @returns undefined when the process is gone */
export async function costOf(pid: number): Promise<MachineCost | undefined> {
  try {
    const [stat, status] = await Promise.all([
      readFile(`/proc/${pid}/stat`, "utf8"),
      readFile(`/proc/${pid}/status`, "utf8"),
    ]);
    return parseCost(pid, stat, status);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESRCH") return undefined;
    throw error;
  }
}

/** Reads the texts of proc(5): a process's `stat` and `status`. */
export function parseCost(
  pid: number,
  stat: string,
  status: string,
): MachineCost {
  // Behind the name, which may hold anything, the third field comes first.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = (field: number) => Number(fields[field - 3] ?? 0);
  const bytes = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? 0) *
    1024;
  return {
    pid,
    cpuNs: ((ticks(14) + ticks(15)) * 1e9) / TICKS,
    residentBytes: bytes("VmRSS"),
    privateBytes: bytes("RssAnon"),
    threads: ticks(20),
  };
}
