import { readFile } from "node:fs/promises";
import { constants } from "node:os";
import { z } from "zod";

/** How a process ended, as far as it is known. */
export interface ProcessEnd {
  code?: number;
  signal?: NodeJS.Signals;
}

/**
 * What tells a process from a later one of the same number: when it started (clock ticks after the
 * host's boot) and which boot that was.
 */
export const processIdentityShape = z.object({
  pid: z.int().positive(),
  startTime: z.string(),
  hostBootId: z.string(),
});
export type ProcessIdentity = z.infer<typeof processIdentityShape>;

/** The identity of a running process; undefined when there is none of that number. */
export async function identify(
  pid: number,
): Promise<ProcessIdentity | undefined> {
  const [startTime, hostBootId] = await Promise.all([
    startTimeOf(pid),
    bootId(),
  ]);
  return startTime === undefined ? undefined : { pid, startTime, hostBootId };
}

/** Whether the very process still runs; a zombie does not. */
export async function isRunning(identity: ProcessIdentity): Promise<boolean> {
  const [startTime, hostBootId] = await Promise.all([
    startTimeOf(identity.pid),
    bootId(),
  ]);
  return startTime === identity.startTime && hostBootId === identity.hostBootId;
}

/** How a process ended whose parent has not collected it yet; empty where that is not to be found out. */
export async function endOf({
  pid,
  startTime,
}: ProcessIdentity): Promise<ProcessEnd> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return parseEnd(stat, startTime);
}

/** The arguments of a process; empty when it is gone. */
export async function argumentsOf(pid: number): Promise<string[]> {
  const text = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return text.split("\0").slice(0, -1);
}

let boot: Promise<string> | undefined;

/** The same for as long as this process lives. */
export function bootId(): Promise<string> {
  boot ??= readFile("/proc/sys/kernel/random/boot_id", "utf8").then((text) =>
    text.trim(),
  );
  return boot;
}

/** Field 52 of a zombie's /proc/PID/stat, which is as wait(2) has it. */
export function parseEnd(stat: string, startTime: string): ProcessEnd {
  const fields = fieldsOf(stat);
  if (fields[0] !== "Z" || fields[19] !== startTime) return {};
  const status = Number(fields[49]);
  const number = status & 0x7f;
  if (number === 0) return { code: status >> 8 };
  const [signal] =
    Object.entries(constants.signals).find(([, one]) => one === number) ?? [];
  return signal === undefined ? {} : { signal: signal as NodeJS.Signals };
}

async function startTimeOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return parseStat(stat);
}

/** Field 22 of /proc/PID/stat; undefined for a zombie or an empty text. */
export function parseStat(stat: string): string | undefined {
  const fields = fieldsOf(stat);
  return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
}

/** From the third one on: the second is the command's name in parentheses and may contain anything. */
function fieldsOf(stat: string): string[] {
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}
