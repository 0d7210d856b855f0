/** Many commands at once: do they keep the machine busy, or wait for each other? */
import type { Measure } from "../bench.js";
import { timeCli } from "../engines/engine.js";
import { row } from "../rows.js";
import { summarize } from "../statistics.js";

const AT_ONCE = 20;
/** A round takes seconds: fewer samples say enough. */
const ROUNDS = 5;

export const parallelMeasure: Measure = {
  name: "parallel",
  async run(bench) {
    const { hull } = bench;
    const one = () =>
      timeCli(hull, ["run", "--rm", bench.images.small, "true"], {
        timeout: 300_000,
      });
    const together: number[] = [];
    const inTurn: number[] = [];
    for (let round = -1; round < Math.min(ROUNDS, bench.repeats); round++) {
      const begin = performance.now();
      await Promise.all(Array.from({ length: AT_ONCE }, one));
      const parallel = performance.now() - begin;
      const between = performance.now();
      for (let i = 0; i < AT_ONCE; i++) await one();
      if (round < 0) continue;
      together.push(parallel);
      inTurn.push(performance.now() - between);
    }
    const summary = summarize(together);
    bench.say(`${AT_ONCE} at once: ${summary.median.toFixed(0)} ms`);
    return [
      row({
        name: `${AT_ONCE} × \`docker run --rm IMAGE true\` at once`,
        unit: "ms",
        hull: summary,
        peer: { name: "one after the other", summary: summarize(inTurn) },
        goal: { of: "ratio", is: "at most", value: 1 },
        plot: {
          group: `${AT_ONCE} × docker run --rm IMAGE true`,
          label: "at once",
        },
      }),
    ];
  },
};
