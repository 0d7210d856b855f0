/** What a saved machine depends on besides its shape. */
import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { commandLine } from "./command-line.js";
import type { Platform } from "./launch.js";
import { bootId } from "./process-identity.js";

/**
 * Tells whether a file is another one than before, without reading it. "" when it is not there. At once: each start
 * asks this of files that are in use, of which the kernel has the answer at hand; another thread's would come later.
 */
export function fileIdentity(path: string): string {
  try {
    const { dev, ino, size, mtimeMs } = statSync(path);
    return [dev, ino, size, mtimeMs].join(" ");
  } catch {
    return "";
  }
}

/** The file that a program's name stands for, by PATH. */
export function findProgram(name: string): string {
  if (name.includes("/")) return name;
  for (const folder of (process.env["PATH"] ?? "").split(delimiter)) {
    const path = join(folder, name);
    if (fileIdentity(path) !== "") return path;
  }
  return name;
}

/**
 * Hash of QEMU, kernel, agent, processor, accelerator, command line and the host's boot: a machine that
 * was saved under one is restored under the very same only.
 */
export async function platformKey(
  platform: Platform,
  subject: {
    qemuVersion: string;
    qemuFile: string;
    kernelHash: string;
    initramfsHash: string;
  },
): Promise<string> {
  const [boot, cpuinfo] = await Promise.all([
    bootId(),
    readFile("/proc/cpuinfo", "utf8"),
  ]);
  const args = commandLine({
    ...platform,
    kernel: "",
    initramfs: "",
    name: "",
    uuid: "",
    shape: { memoryMiB: 0, vcpus: 0, nics: "tap" },
    memory: { kind: "template", path: "" },
    nics: [{ kind: "hub" }],
  });
  return createHash("sha256")
    .update(JSON.stringify([subject, boot, processorOf(cpuinfo), args]))
    .digest("hex")
    .slice(0, 16);
}

/** Model, microcode and features of the first processor; what changes all the time is left out. */
function processorOf(cpuinfo: string): string[] {
  const first = cpuinfo.split("\n\n")[0] ?? "";
  return first
    .split("\n")
    .filter((line) =>
      /^(vendor_id|cpu family|model|model name|stepping|microcode|flags)\s*:/.test(
        line,
      ),
    );
}
