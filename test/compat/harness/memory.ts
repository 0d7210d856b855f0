/** How much memory a process takes, in bytes. */
import { readFileSync, writeFileSync } from "node:fs";

/** Memory that is resident now. */
export function residentMemory(pid: number): number {
  return status(pid, "VmRSS");
}

/**
 * Begins to watch a process.
 * @returns asked later: by how much the most it had meanwhile is above what it had at the beginning; NaN where it
 * has ended
 */
export function peakOf(pid: number): () => number {
  const before = residentMemory(pid);
  // Makes the kernel forget the peak so far: proc(5), clear_refs.
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
  return () => {
    try {
      return status(pid, "VmHWM") - before;
    } catch {
      return NaN;
    }
  };
}

function status(pid: number, field: string): number {
  const text = readFileSync(`/proc/${pid}/status`, "utf8");
  const kib = new RegExp(`^${field}:\\s+(\\d+)`, "m").exec(text)?.[1];
  return Number(kib) * 1024;
}
