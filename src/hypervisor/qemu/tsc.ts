import { readFile } from "node:fs/promises";

/**
 * The frequency of the host's time stamp counter in kHz, which under TCG is the guest's too. Undefined
 * where the host does not tell it exactly; the guest calibrates then, which may fail on a busy host.
 */
export async function hostTscKhz(): Promise<number | undefined> {
  const cpuinfo = await readFile("/proc/cpuinfo", "utf8").catch(() => "");
  return tscKhzOf(cpuinfo);
}

/**
 * From /proc/cpuinfo: "cpu MHz" is the counter's frequency in a virtual machine without frequency
 * counters of its own. On bare metal it is what the core runs at just now, and the nominal frequency
 * is off by up to 1 %.
 */
export function tscKhzOf(cpuinfo: string): number | undefined {
  const words = /^flags\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? "";
  const flags = new Set(words.split(" "));
  const exact =
    flags.has("constant_tsc") &&
    flags.has("hypervisor") &&
    !flags.has("aperfmperf");
  const mhz = Number(/^cpu MHz\s*:\s*([\d.]+)$/m.exec(cpuinfo)?.[1]);
  return exact && mhz > 100 && mhz < 20_000
    ? Math.round(mhz * 1000)
    : undefined;
}
