/** What the host is: for `docker info` and `docker version`. */
import { readFileSync } from "node:fs";
import { cpus, hostname, machine, release, totalmem } from "node:os";

export interface HostFacts {
  name: string;
  kernel: string;
  /** e.g. "Debian GNU/Linux 12 (bookworm)". */
  operatingSystem: string;
  /** VERSION_ID of os-release. */
  osVersion: string;
  /** As the kernel names it: "x86_64". */
  machine: string;
  cpus: number;
  memoryBytes: number;
  ipv4Forwarding: boolean;
}

/** Reads the host's facts afresh; what cannot be read is empty. */
export function readHost(): HostFacts {
  const os = parseOsRelease(read("/etc/os-release"));
  return {
    name: hostname(),
    kernel: release(),
    operatingSystem: os.get("PRETTY_NAME") ?? "",
    osVersion: os.get("VERSION_ID") ?? "",
    machine: machine(),
    cpus: cpus().length,
    memoryBytes: totalmem(),
    ipv4Forwarding: read("/proc/sys/net/ipv4/ip_forward").trim() === "1",
  };
}

/** Parses os-release(5): shell assignments with optional quotes. */
export function parseOsRelease(text: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split("\n")) {
    const match = /^([A-Z0-9_]+)=(?:"(.*)"|'(.*)'|(.*))$/.exec(line.trim());
    if (match === null) continue;
    const value = match[2] ?? match[3] ?? match[4] ?? "";
    values.set(match[1] ?? "", value.replace(/\\(["$`\\])/g, "$1"));
  }
  return values;
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
