/** Whole commands, as a user waits for them. */
import type { Measure } from "../bench.js";
import { sideBySide } from "../bench.js";
import { timeCli } from "../engines/engine.js";
import { poolIsFull } from "../pool.js";

export const runMeasure: Measure = {
  name: "run",
  async run(bench) {
    const { small } = bench.images;
    const command = (network: string[]) => [
      "run",
      "--rm",
      ...network,
      small,
      "true",
    ];
    return [
      ...(await sideBySide(
        bench,
        {
          name: "`docker run --rm IMAGE true`, whole command",
          unit: "ms",
          goal: { of: "ratio", is: "at most", value: 0.33 },
          plot: { group: "docker run --rm IMAGE true", label: "hull" },
        },
        bench.peers,
        async (engine) => {
          await poolIsFull(bench, engine);
          return timeCli(engine, command([]));
        },
      )),
      ...(await sideBySide(
        bench,
        {
          name: "`docker run --rm --network none IMAGE true`, whole command",
          unit: "ms",
          plot: {
            group: "docker run --rm --network none IMAGE true",
            label: "hull",
          },
        },
        bench.peers,
        async (engine) => {
          await poolIsFull(bench, engine);
          return timeCli(engine, command(["--network", "none"]));
        },
      )),
    ];
  },
};
