/** From the API's start to the first byte of the container's output, and where the time goes. */
import type { StartReport } from "../../src/containers/start-trace.js";
import { interleaved, type Bench, type Measure } from "../bench.js";
import type { Engine } from "../engines/engine.js";
import { firstByte } from "../first-byte.js";
import { firstByteAfterAnother, poolIsFull, zygotesAreThere } from "../pool.js";
import { row, type Goal, type Row } from "../rows.js";
import {
  COLD,
  FORKED,
  RESTORED,
  startHulldFor,
  WITHOUT_POOL,
} from "../start-ways.js";
import { summarize, type Summary } from "../statistics.js";

const GROUP = "API start → first byte of output";

interface Way {
  engine: Engine & { api: NonNullable<Engine["api"]> };
  label: string;
  goal?: Goal;
  ms: number[];
  traces: StartReport[];
}

export const startMeasure: Measure = {
  name: "start",
  async run(bench) {
    const emulated = await bench.hull.api.isEmulated();
    const atMost = (value: number): Goal => ({
      of: "hull",
      is: "at most",
      value,
    });
    const way = (engine: Way["engine"], label: string, goal?: Goal): Way => ({
      engine,
      label,
      ...(goal && { goal }),
      ms: [],
      traces: [],
    });
    const ways = [way(bench.hull, "default", atMost(30))];
    const forked = await startHulldFor(bench, "forked", FORKED.flags);
    const alone = emulated
      ? await startHulldFor(bench, "without-pool", WITHOUT_POOL.flags)
      : undefined;
    const restored = await startHulldFor(bench, "restored", RESTORED.flags);
    const cold = await startHulldFor(bench, "cold", COLD.flags);
    if (forked) ways.push(way(forked, "pool just used"));
    if (alone) ways.push(way(alone, "without a pool", atMost(120)));
    if (restored) {
      ways.push(way(restored, "restored", atMost(emulated ? 120 : 60)));
    }
    if (cold) ways.push(way(cold, "cold boot"));
    const peers = bench.peers.flatMap((engine) => {
      const { api } = engine;
      return api ? [way({ ...engine, api }, engine.name)] : [];
    });
    const all = new Map([...ways, ...peers].map((one) => [one.engine, one]));

    await interleaved([...all.keys()], bench.repeats, async (engine) => {
      const own = ways.some((one) => one.engine === engine);
      await poolIsFull(bench, engine);
      if (alone && engine === alone) await zygotesAreThere(alone.api);
      const sample =
        engine === forked
          ? await firstByteAfterAnother(forked.api, bench.images.small)
          : await firstByte(engine.api, bench.images.small, own);
      const found = all.get(engine);
      found?.ms.push(sample.ms);
      if (sample.trace) found?.traces.push(sample.trace);
    });
    await forked?.stop();
    await alone?.stop();
    await restored?.stop();
    await cold?.stop();
    // The first round was the warm-up.
    for (const one of all.values()) {
      one.ms.shift();
      one.traces.shift();
    }
    const peer = peers[0] && {
      name: peers[0].label,
      summary: summarize(peers[0].ms),
    };
    return ways.flatMap((one) => wayRows(bench, one, peer));
  },
};

function wayRows(
  bench: Bench,
  { label, goal, ms, traces }: Way,
  peer: { name: string; summary: Summary } | undefined,
): Row[] {
  const kinds = new Map<string, number>();
  for (const { kind = "?" } of traces) {
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  const told = [...kinds].map(([kind, count]) => `${count} ${kind}`).join(", ");
  const name = `${GROUP}, ${label} (${told})`;
  const hull = summarize(ms);
  bench.say(`${name}: ${hull.median.toFixed(1)} ms`);
  return [
    row({
      name,
      unit: "ms",
      hull,
      peer,
      goal,
      plot: {
        group: GROUP,
        label: label === "default" ? "hull" : `hull, ${label}`,
      },
    }),
    ...spanRows(label, traces),
  ];
}

/** One row a span, in the order they begin in. */
function spanRows(label: string, traces: readonly StartReport[]): Row[] {
  const spans = new Map<string, { at: number[]; ms: number[] }>();
  for (const trace of traces) {
    for (const { name, at, ms } of trace.spans) {
      const all = spans.get(name) ?? { at: [], ms: [] };
      all.at.push(at);
      all.ms.push(ms);
      spans.set(name, all);
    }
  }
  return [...spans]
    .map(([name, { at, ms }]) => ({
      at: summarize(at).median,
      made: row({
        name: `start, ${label}: ${name}`,
        unit: "ms",
        hull: summarize(ms),
        detail: true,
      }),
    }))
    .sort((a, b) => a.at - b.at)
    .map(({ made }) => made);
}
