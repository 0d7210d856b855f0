/**
 * How many instructions a guest executes from its first one to the container's first one. It depends on no
 * other load of the machine, so it is compared with a figure that is kept in the repository.
 */
import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Bench, Measure } from "../bench.js";
import type { EngineApi } from "../engine-api.js";
import { findProgram, run, sleep } from "../processes.js";
import { row, single, type Row } from "../rows.js";
import { COLD, RESTORED, startHulldFor, type StartWay } from "../start-ways.js";
import { summarize } from "../statistics.js";

const here = (name: string) =>
  fileURLToPath(new URL(`../instructions/${name}`, import.meta.url));
/** Millions, by the way of the start. */
export const BASELINE = here("baseline.json");
const MILLION = 1e6;
/** What fails the bench. */
const REGRESSION = 1.05;
/** The counts differ by some ten thousand, for the timer's interrupts. */
const SAMPLES = 5;
/** How long the making of a template may take, counted and on a busy machine. */
const TEMPLATE_MS = 180_000;
const TIMEOUT_MS = 60_000;

export type Baseline = Partial<Record<StartWay["kind"], number>>;

export const instructionsMeasure: Measure = {
  name: "instructions",
  async run(bench) {
    const programs = await countingQemu(bench);
    if (programs === undefined) return [];
    const baseline = JSON.parse(await readFile(BASELINE, "utf8")) as Baseline;
    const rows: Row[] = [];
    for (const way of [COLD, RESTORED]) {
      const counts = await countsOf(bench, way, programs);
      if (!counts) continue;
      const hull = summarize(counts.map((count) => count / MILLION));
      const before = baseline[way.kind];
      bench.say(`instructions, ${way.kind}: ${hull.median.toFixed(2)} million`);
      rows.push(
        row({
          name: `guest instructions to the container's first one, ${way.kind}`,
          unit: "million",
          hull,
          ...(before !== undefined && {
            peer: { name: "baseline", summary: single(before) },
            goal: { of: "ratio", is: "at most", value: REGRESSION },
          }),
          key: `instructions.${way.kind}`,
          mandatory: true,
        }),
      );
    }
    return rows;
  },
};

/** @returns a folder with a QEMU that counts into `<folder>/counts/<pid>`; undefined where there can be none */
async function countingQemu(bench: Bench): Promise<string | undefined> {
  const qemu = findProgram("qemu-system-x86_64");
  const skip = (why: string) => {
    bench.say(`skipped: instructions (${why})`);
    return undefined;
  };
  if (!qemu) return skip("no QEMU");
  const folder = await bench.scratch.folder("count");
  const counts = await bench.scratch.folder("count/counts");
  const plugin = join(folder, "count.so");
  const version = await run([qemu, "--version"]);
  const major = Number(/version (\d+)/.exec(version)?.[1] ?? 0);
  await run([
    ...["gcc", "-O2", "-fPIC", "-shared", `-DAPI_VERSION=${major < 9 ? 1 : 2}`],
    ...["-o", plugin, here("count.c")],
  ]);
  try {
    await run([
      qemu,
      "-M",
      "none",
      "-plugin",
      `file=${plugin},out=/dev/null`,
      "--version",
    ]);
  } catch (error) {
    return skip(`this QEMU takes no plugin: ${String(error)}`);
  }
  const wrapper = join(folder, "qemu-system-x86_64");
  // Questions to QEMU itself (its version, its devices) are answered as ever.
  await writeFile(
    wrapper,
    `#!/bin/sh
case " $* " in
*" -kernel "*) exec ${qemu} "$@" -plugin file=${plugin},out=${counts}/$$ ;;
*) exec ${qemu} "$@" ;;
esac
`,
  );
  await chmod(wrapper, 0o755);
  return folder;
}

async function countsOf(
  bench: Bench,
  { kind, flags }: StartWay,
  programs: string,
): Promise<number[] | undefined> {
  const hulld = await startHulldFor(
    bench,
    `count-${kind === "cold" ? "c" : "r"}`,
    // A room has no place for the wrapper.
    [...flags, "--accel", "tcg", "--unsafe-unconfined-machines"],
    programs,
  );
  if (!hulld) return undefined;
  await run(hulld.pull(bench.images.marker), { env: hulld.environment });
  const counts: number[] = [];
  // The first start may be what the template is made for.
  const deadline = Date.now() + TEMPLATE_MS;
  while ((await sample(bench, hulld.api, programs)).kind !== kind) {
    if (Date.now() > deadline) throw new Error(`no start is a ${kind} one`);
    await sleep(1000);
  }
  for (let round = 0; round < SAMPLES; round++) {
    const { count, kind: was } = await sample(bench, hulld.api, programs);
    if (was !== kind)
      throw new Error(`a ${was} start instead of a ${kind} one`);
    counts.push(count);
  }
  await hulld.stop();
  return counts;
}

async function sample(
  bench: Bench,
  api: EngineApi,
  programs: string,
): Promise<{ count: number; kind: string | undefined }> {
  const id = await api.create(bench.images.marker, ["/marker"]);
  try {
    await api.start(id);
    const file = join(programs, "counts", String(await api.pid(id)));
    const deadline = Date.now() + TIMEOUT_MS;
    for (;;) {
      const text = await readFile(file, "utf8");
      if (text.endsWith("\n")) {
        const { kind } = await api.trace(id);
        return { count: Number(text.split("\n")[0]), kind };
      }
      if (Date.now() > deadline) throw new Error("the marker was not executed");
      await sleep(50);
    }
  } finally {
    await api.remove(id);
  }
}
