/** The container's processes as `ps` lists them, from /proc. */
import type { ProcessInfo } from "../../protocol/index.js";
import { listPids } from "./cgroup.js";
import { CLOCK_BOOTTIME, CLOCK_REALTIME } from "./constants.js";
import { readAll, readText } from "./files.js";
import { openFileInRoot } from "./in-root.js";
import { ROOT } from "./in-root.js";
import { unless } from "./sys.js";
import { parsePasswd } from "./users.js";

/** Clock ticks a second in /proc (USER_HZ). */
const TICKS = 100;
const PAGE = 4096;
const MAX_COMMAND = 4096;
const MAX_PROCESSES = 10_000;

export function listProcesses(): ProcessInfo[] {
  const bootedAt = sys.clock(CLOCK_REALTIME) - sys.clock(CLOCK_BOOTTIME);
  const names = userNames();
  const pids = listPids().slice(0, MAX_PROCESSES);
  // A process may end while it is looked at.
  const found = pids.map((pid) =>
    unless(["ENOENT", "ESRCH"], () => readProcess(pid, bootedAt, names)),
  );
  const inside = new Map(
    found.map((info, i) => [pids[i] as number, info?.pid ?? 0]),
  );
  return found
    .filter((info) => info !== undefined)
    .map((info) => ({ ...info, ppid: inside.get(info.ppid) ?? 0 }))
    .sort((a, b) => a.pid - b.pid);
}

/** `ppid` is still the agent's view of it. */
function readProcess(
  pid: number,
  bootedAt: number,
  names: Map<number, string>,
): ProcessInfo {
  const base = `/proc/${pid}`;
  const stat = parseStat(readText(`${base}/stat`));
  const status = readText(`${base}/status`);
  const uid = Number((statusField(status, "Uid").split("\t")[1] ?? "0").trim());
  const nested = statusField(status, "NSpid").split("\t");
  const command = readText(`${base}/cmdline`, MAX_COMMAND)
    .split("\0")
    .join(" ")
    .trim();
  return {
    pid: Number(nested[nested.length - 1]),
    ppid: stat.ppid,
    user: names.get(uid) ?? String(uid),
    cpuMs: (stat.ticks * 1000) / TICKS,
    startedAt: Math.round(bootedAt + (stat.startTicks * 1000) / TICKS),
    rss: stat.rssPages * PAGE,
    tty: stat.tty,
    command: command === "" ? `[${stat.name}]` : command,
  };
}

/** The fields of /proc/PID/stat that are used; the name in it may hold anything. */
export function parseStat(text: string): {
  name: string;
  ppid: number;
  ticks: number;
  startTicks: number;
  rssPages: number;
  tty: string;
} {
  const close = text.lastIndexOf(")");
  const fields = text.slice(close + 2).split(" ");
  const field = (number: number) => Number(fields[number - 3] ?? 0);
  const tty = field(7);
  const minor = (tty & 0xff) | ((tty >> 12) & 0xfff00);
  return {
    name: text.slice(text.indexOf("(") + 1, close),
    ppid: field(4),
    ticks: field(14) + field(15),
    startTicks: field(22),
    rssPages: field(24),
    tty: tty === 0 ? "?" : `pts/${minor}`,
  };
}

function statusField(status: string, name: string): string {
  const line = status
    .split("\n")
    .find((candidate) => candidate.startsWith(`${name}:`));
  return line ? line.slice(name.length + 1).trim() : "";
}

function userNames(): Map<number, string> {
  const names = new Map<number, string>();
  const fd = openFileInRoot(ROOT, "/etc/passwd");
  if (fd === undefined) return names;
  try {
    for (const { name, uid } of parsePasswd(readAll(fd, 1024 * 1024)))
      if (!names.has(uid)) names.set(uid, name);
  } finally {
    sys.close(fd);
  }
  return names;
}
