import { readdir } from "node:fs/promises";
import { join, sep } from "node:path";
import { guestName } from "./command-line.js";
import { argumentsOf } from "./process-identity.js";

/**
 * Ends the QEMU processes whose folder was made under `root` and that none of `uuids` is of. A daemon
 * that was killed between starting a machine and recording it leaves such a process.
 * @returns the process IDs of those it ended
 */
export async function endOrphans(
  root: string,
  uuids: ReadonlySet<string>,
): Promise<number[]> {
  const ended: number[] = [];
  const below = guestName("", join(root, sep));
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const args = await argumentsOf(Number(name));
    const guest = args.find((argument) => argument.startsWith("guest="));
    if (!guest?.includes(below)) continue;
    if (args.some((argument) => uuids.has(argument))) continue;
    try {
      process.kill(Number(name), "SIGKILL");
      ended.push(Number(name));
    } catch {
      // It ended by itself.
    }
  }
  return ended;
}
