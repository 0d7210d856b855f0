/** Many idle containers at once: how soon another one starts, and what they cost the host. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Bench, Measure } from "../bench.js";
import { firstByte } from "../first-byte.js";
import { poolIsFull } from "../pool.js";
import { sleep } from "../processes.js";
import { row, single, type Row } from "../rows.js";
import { summarize, type Summary } from "../statistics.js";

const MB = 1e6;
/** How long the idle ones are left alone before their memory is read: guests give free pages back. */
const SETTLE_MS = 5000;
const FLAT = 1.2;
/** One start may take twice as long as the next: the levels are compared by so many times the usual samples. */
const SAMPLES = 3;

export const densityMeasure: Measure = {
  name: "density",
  async run(bench) {
    const { api } = bench.hull;
    const rows: Row[] = [];
    const running: string[] = [];
    const daemonAlone = await privateBytes(bench.hull.pid);
    let first: Summary | undefined;
    try {
      for (const level of bench.density) {
        while (running.length < level) {
          const id = await api.create(bench.images.small, ["sleep", "100000"]);
          running.push(id);
          await api.start(id);
        }
        const now = await latency(bench);
        bench.say(`${level} running: ${now.median.toFixed(1)} ms`);
        rows.push(
          row({
            name: `API start → first byte of output with ${level} containers running`,
            unit: "ms",
            hull: now,
            ...(first && {
              peer: { name: "with none", summary: first },
              goal: { of: "ratio", is: "at most", value: FLAT },
            }),
            plot: {
              group: "API start → first byte, among idle containers",
              label: `${level} running`,
            },
          }),
        );
        first ??= now;
      }
      if (running.length > 0) {
        await sleep(SETTLE_MS);
        rows.push(...(await memoryRows(bench, running, daemonAlone)));
      }
    } finally {
      for (const id of running) await api.remove(id);
    }
    return rows;
  },
};

async function latency(bench: Bench): Promise<Summary> {
  const samples: number[] = [];
  for (let round = -1; round < SAMPLES * bench.repeats; round++) {
    await poolIsFull(bench, bench.hull);
    const { api } = bench.hull;
    const { ms } = await firstByte(api, bench.images.small, false);
    if (round >= 0) samples.push(ms);
  }
  return summarize(samples);
}

async function memoryRows(
  bench: Bench,
  running: readonly string[],
  daemonAlone: number,
): Promise<Row[]> {
  const { api, pid, directory } = bench.hull;
  const daemon = await privateBytes(pid);
  const share = Math.max(0, daemon - daemonAlone) / running.length;
  const machines = await Promise.all(
    running.map(async (id) => machineBytes(await api.pid(id))),
  );
  const others = (await machinesOf(directory)).length - running.length;
  const pool = await Promise.all(
    (await machinesOf(directory)).map((process) => machineBytes(process)),
  );
  const all = daemon + pool.reduce((sum, bytes) => sum + bytes, 0);
  bench.say(
    `${running.length} idle: ${(all / MB).toFixed(0)} MB with the daemon and ${others} machines of its pool`,
  );
  return [
    row({
      name: `private memory of an idle container: its QEMU, and its share of the zygote and of what ${running.length} add to the daemon`,
      unit: "MB",
      hull: summarize(machines.map((bytes) => (bytes + share) / MB)),
      goal: { of: "hull", is: "at most", value: 25 },
    }),
    row({
      name: `private memory of ${running.length} idle containers, the daemon and ${others} machines of its pool`,
      unit: "MB",
      hull: single(all / MB),
      goal: {
        of: "hull",
        is: "at most",
        value: 30 * running.length,
      },
    }),
  ];
}

/** Memory that nobody else has, and that would be free without the process. */
function privateBytes(pid: number): Promise<number> {
  return rolledUp(pid, /^Private_(?:Dirty|Clean): +(\d+) kB$/gm);
}

/**
 * A machine's process has its private memory, and its share of what it has in common with those that were
 * forked from the same zygote: all of them together count each page once. What they share by a file, the
 * template's memory or a library, is in the page cache, whoever runs.
 */
function machineBytes(pid: number): Promise<number> {
  return rolledUp(pid, /^(?:Pss_Anon|Private_Clean): +(\d+) kB$/gm);
}

async function rolledUp(pid: number, lines: RegExp): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, "utf8");
  let kib = 0;
  for (const [, value] of text.matchAll(lines)) kib += Number(value);
  return kib * 1024;
}

/** The processes of a daemon's machines: those that name its folder. */
async function machinesOf(directory: string): Promise<number[]> {
  const found: number[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const command = await readFile(
      join("/proc", name, "cmdline"),
      "utf8",
    ).catch(() => "");
    if (
      /^[^\0]*qemu-system/.test(command) &&
      command.includes(`${directory}/`)
    ) {
      found.push(Number(name));
    }
  }
  return found;
}
