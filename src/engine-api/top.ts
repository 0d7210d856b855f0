/** The table of `docker top`. */
import type { ProcessInfo } from "../../protocol/index.js";
import { InvalidParameter } from "../errors.js";

/** Columns `ps` has, with how each is shown. */
const COLUMNS: Record<string, (process: ProcessInfo) => string> = {
  UID: (process) => process.user,
  USER: (process) => process.user,
  PID: (process) => String(process.pid),
  PPID: (process) => String(process.ppid),
  C: () => "0",
  STIME: (process) => clock(process.startedAt),
  START: (process) => clock(process.startedAt),
  TTY: (process) => process.tty,
  TIME: (process) => cpuTime(process.cpuMs),
  RSS: (process) => String(Math.floor(process.rss / 1024)),
  CMD: (process) => process.command,
  COMMAND: (process) => process.command,
  ARGS: (process) => process.command,
};

const FULL = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
const AUX = ["USER", "PID", "RSS", "TTY", "START", "TIME", "COMMAND"];

/**
 * @param arguments_ of ps: "-ef" (the default), "aux", or "-o" with a list of columns
 * @throws {InvalidParameter} any other
 */
export function psTable(processes: ProcessInfo[], arguments_: string) {
  const titles = columnsOf(arguments_.trim());
  return {
    Titles: titles,
    Processes: processes.map((process) =>
      titles.map((title) => COLUMNS[title]?.(process) ?? ""),
    ),
  };
}

function columnsOf(arguments_: string): string[] {
  if (/^$|^-?ef$|^-ef$/.test(arguments_)) return FULL;
  if (/^-?aux$/.test(arguments_)) return AUX;
  const list = /^(?:-?e?o|-eo|-o)\s*(.+)$/.exec(arguments_)?.[1];
  const titles = (list ?? "")
    .split(",")
    .map((one) => one.trim().toUpperCase())
    // As ps heads it.
    .map((title) => (title === "ARGS" ? "COMMAND" : title));
  if (titles.every((title) => Object.hasOwn(COLUMNS, title))) return titles;
  throw new InvalidParameter(
    `invalid ps_args: ${JSON.stringify(arguments_)}: hull knows -ef, aux and -o with ${Object.keys(COLUMNS).join(", ").toLowerCase()}`,
  );
}

function clock(ms: number): string {
  return new Date(ms).toISOString().slice(11, 16);
}

function cpuTime(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  return [seconds / 3600, (seconds / 60) % 60, seconds % 60]
    .map((part) => String(Math.floor(part)).padStart(2, "0"))
    .join(":");
}
