import { readdirSync, readFileSync } from "node:fs";
import { join, sep } from "node:path";
import { guestName } from "./command-line.js";

/** Machines that an earlier daemon, which was killed, had started and not recorded. */
export class Orphans {
  /** What ran when this daemon had started nothing yet. */
  #left: GuestProcess[] | undefined;

  /** Ends those below `root` that have none of `uuids`; says how many. */
  end(root: string, uuids: string[]): number {
    this.#left ??= guestProcesses();
    return endOrphans(this.#left, root, new Set(uuids)).length;
  }
}

/** A process that is a machine's QEMU, or is about to be. */
interface GuestProcess {
  pid: number;
  guest: string;
}

/**
 * All machines of the host, whosever they are. In one go: this is for a daemon that starts, which has nothing else
 * to do, and a thousand files of /proc one after the other by other threads take it four times as long.
 */
function guestProcesses(): GuestProcess[] {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    const pid = Number(name);
    const guest = guestOf(argumentsNow(pid));
    return guest === undefined ? [] : [{ pid, guest }];
  });
}

/**
 * Ends those of the processes whose folder was made under `root` and that none of `uuids` is of. A daemon
 * that was killed between starting a machine and recording it leaves such a process.
 * @returns the process IDs of those it ended
 */
function endOrphans(
  processes: readonly GuestProcess[],
  root: string,
  uuids: ReadonlySet<string>,
): number[] {
  const ended: number[] = [];
  const below = guestName("", join(root, sep));
  for (const { pid, guest } of processes) {
    if (!guest.includes(below)) continue;
    // It may be another process by now.
    const args = argumentsNow(pid);
    if (!guestOf(args)?.includes(below)) continue;
    if (args.some((argument) => uuids.has(argument))) continue;
    try {
      process.kill(pid, "SIGKILL");
      ended.push(pid);
    } catch {
      // It ended by itself.
    }
  }
  return ended;
}

function guestOf(args: readonly string[]): string | undefined {
  return args.find((argument) => argument.startsWith("guest="));
}

function argumentsNow(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return [];
  }
}
