/** What every measurement is given, and how samples are taken. */
import type { Engine } from "./engines/engine.js";
import type { Hulld } from "./engines/hulld.js";
import type { Images } from "./images.js";
import type { NetworkSpace } from "./network-space.js";
import { row, type Goal, type Row } from "./rows.js";
import type { Scratch } from "./scratch.js";
import { summarize } from "./statistics.js";

export interface Bench {
  scratch: Scratch;
  space: NetworkSpace;
  images: Images;
  hull: Hulld;
  peers: Engine[];
  /** Samples of each figure, after one that does not count. */
  repeats: number;
  /** Says what goes on. */
  say(text: string): void;
}

/** A group of rows. */
export interface Measure {
  name: string;
  run(bench: Bench): Promise<Row[]>;
}

/**
 * Takes samples of hull and the peers in turn, so that all see the same moods of the machine.
 * @returns a row for each peer, or one without a peer where there is none
 */
export async function sideBySide(
  bench: Bench,
  what: { name: string; unit: string; goal?: Goal; repeats?: number },
  peers: readonly Engine[],
  sample: (engine: Engine) => Promise<number>,
): Promise<Row[]> {
  const engines: Engine[] = [bench.hull, ...peers];
  const samples = await interleaved(
    engines,
    what.repeats ?? bench.repeats,
    sample,
  );
  const hull = summarize(samples.get(bench.hull) ?? []);
  const { name, unit, goal } = what;
  bench.say(`${name}: ${hull.median.toFixed(2)} ${unit}`);
  if (peers.length === 0) {
    return [row({ name, unit, hull, goal })];
  }
  return peers.map((peer) =>
    row({
      name,
      unit,
      hull,
      goal,
      peer: { name: peer.name, summary: summarize(samples.get(peer) ?? []) },
    }),
  );
}

async function interleaved(
  engines: readonly Engine[],
  repeats: number,
  sample: (engine: Engine) => Promise<number>,
): Promise<Map<Engine, number[]>> {
  const samples = new Map<Engine, number[]>();
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
