/** What the container takes of the machine: from its cgroup, /proc and its disk. */
import type { Usage } from "../../protocol/index.js";
import { CLOCK_MONOTONIC } from "./constants.js";
import { readControl } from "./cgroup.js";
import { readText } from "./files.js";
import { writtenBytes } from "./rootfs.js";

export function readUsage(): Usage {
  const cpu = parseFlat(readControl("cpu.stat"));
  const memory = readControl("memory.current");
  const cpus = countCpus(readText("/proc/stat"));
  return {
    machine: {
      cpus,
      memoryBytes: parseMemory(readText("/proc/meminfo")),
      // Not the kernel's ticks, which get lost where the host lets the machine wait: by the clock of cgroups.
      cpuUs: Math.round(cpus * sys.clock(CLOCK_MONOTONIC) * 1000),
    },
    cpu: {
      userUs: cpu["user_usec"] ?? 0,
      systemUs: cpu["system_usec"] ?? 0,
      totalUs: cpu["usage_usec"] ?? 0,
      periods: cpu["nr_periods"] ?? 0,
      throttledPeriods: cpu["nr_throttled"] ?? 0,
      throttledUs: cpu["throttled_usec"] ?? 0,
    },
    memory: {
      bytes: Number(memory),
      peakBytes: Number(readControl("memory.peak") || memory),
      limitBytes: parseLimit(readControl("memory.max")),
      stat: parseFlat(readControl("memory.stat")),
    },
    pids: {
      current: Number(readControl("pids.current")),
      limit: parseLimit(readControl("pids.max")),
    },
    devices: parseDevices(readControl("io.stat")),
    interfaces: parseInterfaces(readText("/proc/net/dev")),
    diskBytes: writtenBytes(),
  };
}

/** A control file of lines "name number". */
export function parseFlat(text: string): Record<string, number> {
  const values: Record<string, number> = {};
  for (const line of text.split("\n")) {
    const space = line.indexOf(" ");
    if (space > 0) values[line.slice(0, space)] = Number(line.slice(space + 1));
  }
  return values;
}

/** A limit of a control file; -1 for "max" and for a file that is not there. */
export function parseLimit(text: string): number {
  const value = text.trim();
  return value === "" || value === "max" ? -1 : Number(value);
}

/** /proc/stat: a line for each CPU, after one of all. */
export function countCpus(text: string): number {
  return text.split("\n").filter((line) => {
    const digit = line[3];
    return line.startsWith("cpu") && digit !== undefined && digit !== " ";
  }).length;
}

function parseMemory(text: string): number {
  const line = text.split("\n").find((one) => one.startsWith("MemTotal:"));
  return Number((line ?? "").split(" ").filter(Boolean)[1] ?? 0) * 1024;
}

/** io.stat: "254:0 rbytes=1 wbytes=2 rios=3 wios=4 …"; the kernel leaves devices without traffic out. */
export function parseDevices(text: string): Usage["devices"] {
  const devices: Usage["devices"] = [];
  for (const line of text.split("\n")) {
    const [name = "", ...pairs] = line.split(" ").filter(Boolean);
    const [major, minor] = name.split(":").map(Number);
    if (major === undefined || minor === undefined || pairs.length === 0)
      continue;
    const values: Record<string, number> = {};
    for (const pair of pairs) {
      const equals = pair.indexOf("=");
      values[pair.slice(0, equals)] = Number(pair.slice(equals + 1));
    }
    devices.push({
      major,
      minor,
      readBytes: values["rbytes"] ?? 0,
      writtenBytes: values["wbytes"] ?? 0,
      reads: values["rios"] ?? 0,
      writes: values["wios"] ?? 0,
    });
  }
  return devices;
}

/** /proc/net/dev without the loopback device. */
export function parseInterfaces(text: string): Usage["interfaces"] {
  const interfaces: Usage["interfaces"] = [];
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).trim();
    if (colon < 0 || name === "lo") continue;
    const fields = line
      .slice(colon + 1)
      .split(" ")
      .filter(Boolean)
      .map(Number);
    const counters = (at: number) => ({
      bytes: fields[at] ?? 0,
      packets: fields[at + 1] ?? 0,
      errors: fields[at + 2] ?? 0,
      dropped: fields[at + 3] ?? 0,
    });
    interfaces.push({ name, rx: counters(0), tx: counters(8) });
  }
  return interfaces;
}
