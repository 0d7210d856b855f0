/** What every measurement is given, and how samples are taken. */
import type { Engine } from "./engines/engine.js";
import type { Hulld } from "./engines/hulld.js";
import type { Images } from "./images.js";
import type { NetworkSpace } from "./network-space.js";
import { row, type Goal, type Plot, type Row } from "./rows.js";
import type { Scratch } from "./scratch.js";
import { summarize } from "./statistics.js";

export interface Bench {
  scratch: Scratch;
  space: NetworkSpace;
  images: Images;
  hull: Hulld;
  peers: Engine[];
  /** Flags for every hulld. */
  hulldFlags: readonly string[];
  /** Samples of each figure, after one that does not count. */
  repeats: number;
  /** How many containers are running when starts are measured among them, ascending; 0 is the first. */
  density: readonly number[];
  /** Says what goes on. */
  say(text: string): void;
}

/** A group of rows. */
export interface Measure {
  name: string;
  run(bench: Bench): Promise<Row[]>;
}

export interface Figure {
  name: string;
  unit: string;
  /** For hull's own figure; or for its ratio to dockerd's, which is whom the goals were set by. */
  goal?: Goal | undefined;
  repeats?: number;
  plot?: Plot;
}

/**
 * Takes samples of hull and the peers in turn, so that all see the same moods of the machine.
 * @returns a row for each peer, or one without a peer where there is none
 */
export async function sideBySide(
  bench: Bench,
  what: Figure,
  peers: readonly Engine[],
  sample: (engine: Engine) => Promise<number>,
): Promise<Row[]> {
  const engines: Engine[] = [bench.hull, ...peers];
  const samples = await interleaved(
    engines,
    what.repeats ?? bench.repeats,
    sample,
  );
  const of = (engine: Engine) => summarize(samples.get(engine) ?? []);
  const hull = of(bench.hull);
  const { name, unit, goal } = what;
  const plot = what.plot && { plot: what.plot };
  bench.say(`${name}: ${hull.median.toFixed(2)} ${unit}`);
  if (peers.length === 0) {
    return [row({ name, unit, hull, goal, ...plot })];
  }
  return peers.map((engine) =>
    row({
      name,
      unit,
      hull,
      goal:
        goal?.of === "hull" || engine.name.startsWith("dockerd")
          ? goal
          : undefined,
      peer: { name: engine.name, summary: of(engine) },
      ...plot,
    }),
  );
}

/** One sample of each engine in turn, again and again; the first round does not count. */
export async function interleaved<E extends Engine, Sample = number>(
  engines: readonly E[],
  repeats: number,
  sample: (engine: E) => Promise<Sample>,
): Promise<Map<E, Sample[]>> {
  const samples = new Map<E, Sample[]>();
  for (let round = -1; round < repeats; round++) {
    for (const engine of engines) {
      const value = await sample(engine);
      if (round >= 0) {
        samples.set(engine, [...(samples.get(engine) ?? []), value]);
      }
    }
  }
  return samples;
}
