/** The container's cgroup (version 2): its limits, its processes, and what the kernel killed in it. */
import type { Limits } from "../../protocol/index.js";
import {
  AT_FDCWD,
  AT_REMOVEDIR,
  O_DIRECTORY,
  O_PATH,
  O_RDONLY,
} from "./constants.js";
import { step } from "./failure.js";
import { readText, writeText } from "./files.js";
import { unless } from "./sys.js";

const BASE = "/sys/fs/cgroup";
const PATH = `${BASE}/container`;
const CONTROLLERS = ["memory", "pids", "cpu", "cpuset", "io", "hugetlb"];
/** More processes than this are not listed. */
const MAX_LIST = 4 * 1024 * 1024;

/** Makes the container's cgroup, without limits. @returns a descriptor of its folder */
export function makeCgroup(): number {
  return step("make the cgroup", () => {
    const available = readText(`${BASE}/cgroup.controllers`).trim().split(" ");
    const wanted = CONTROLLERS.filter((name) => available.includes(name));
    writeText(
      `${BASE}/cgroup.subtree_control`,
      wanted.map((name) => `+${name}`).join(" "),
    );
    sys.mkdir(AT_FDCWD, PATH, 0o755);
    return sys.open(AT_FDCWD, PATH, O_PATH | O_DIRECTORY, 0);
  });
}

/** Removes it, with all it has counted. */
export function removeCgroup(): void {
  step("remove the cgroup", () => sys.unlinkAt(AT_FDCWD, PATH, AT_REMOVEDIR));
}

/** Sets the limits that are given and leaves the others as they are. */
export function setLimits(limits: Limits): void {
  for (const [file, value] of limitFiles(limits))
    step(`set ${file}`, () => writeText(`${PATH}/${file}`, value));
}

/** A control file of the container; "" where the kernel has none of that name. */
export function readControl(file: string): string {
  return unless(["ENOENT"], () => readText(`${PATH}/${file}`)) ?? "";
}

/** The control files that hold the limits; a negative number takes a limit away. */
export function limitFiles(limits: Limits): [file: string, value: string][] {
  const files: [string, string][] = [];
  const { memoryBytes, memorySwapBytes, memoryLowBytes } = limits;
  const { cpuQuotaUs, cpuWeight, pids } = limits;
  if (memoryBytes !== undefined && memoryBytes > 0)
    files.push(["memory.max", `${memoryBytes}`]);
  if (memorySwapBytes !== undefined) {
    // Docker's number is memory and swap together, -1 is no limit.
    const swap = memorySwapBytes - (memoryBytes ?? 0);
    files.push([
      "memory.swap.max",
      memorySwapBytes < 0 ? "max" : `${Math.max(0, swap)}`,
    ]);
  }
  if (memoryLowBytes !== undefined && memoryLowBytes > 0)
    files.push(["memory.low", `${memoryLowBytes}`]);
  if (cpuQuotaUs !== undefined && cpuQuotaUs !== 0) {
    const quota = cpuQuotaUs < 0 ? "max" : `${cpuQuotaUs}`;
    files.push(["cpu.max", `${quota} ${limits.cpuPeriodUs ?? 100000}`]);
  }
  if (cpuWeight !== undefined && cpuWeight > 0)
    files.push(["cpu.weight", `${cpuWeight}`]);
  if (pids !== undefined && pids !== 0)
    files.push(["pids.max", pids < 0 ? "max" : `${pids}`]);
  return files;
}

/** How many of the container's processes the kernel has killed for want of memory. */
export function countOomKills(): number {
  const line = readControl("memory.events")
    .split("\n")
    .find((candidate) => candidate.startsWith("oom_kill "));
  return line ? Number(line.slice("oom_kill ".length)) : 0;
}

/** A descriptor on which EPOLLPRI says that the memory counters have changed. */
export function openMemoryEvents(): number {
  return sys.open(AT_FDCWD, `${PATH}/memory.events`, O_RDONLY, 0);
}

/** PIDs, as the agent sees them, of all the container's processes. */
export function listPids(): number[] {
  return pidsOf(PATH, 0);
}

/** Kills every process of the container at once. */
export function killAll(): void {
  unless(["ENOENT"], () => writeText(`${PATH}/cgroup.kill`, "1"));
}

/** Stops or continues all processes; see `isFrozen` for when they do. */
export function freeze(frozen: boolean): void {
  writeText(`${PATH}/cgroup.freeze`, frozen ? "1" : "0");
}

/** Whether all processes stand still. */
export function isFrozen(): boolean {
  return readText(`${PATH}/cgroup.events`).includes("frozen 1");
}

/** A privileged container may have made cgroups below its own. */
function pidsOf(path: string, depth: number): number[] {
  const text =
    unless(["ENOENT", "EOPNOTSUPP"], () =>
      readText(`${path}/cgroup.procs`, MAX_LIST),
    ) ?? "";
  const pids = text.split("\n").filter(Boolean).map(Number);
  if (depth > 16) return pids;
  for (const name of unless(["ENOENT"], () => sys.list(path)) ?? [])
    if (!name.includes(".")) pids.push(...pidsOf(`${path}/${name}`, depth + 1));
  return pids;
}
