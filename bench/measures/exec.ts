/** A command in a container that runs. */
import { sideBySide, type Measure } from "../bench.js";
import { timeCli, type Engine } from "../engines/engine.js";
import { run } from "../processes.js";

const NAME = "bench-exec";

export const execMeasure: Measure = {
  name: "exec",
  async run(bench) {
    const engines: Engine[] = [bench.hull, ...bench.peers];
    const cli = (engine: Engine, ...args: string[]) =>
      run(engine.cli(...args), { env: engine.environment });
    for (const engine of engines) {
      await cli(
        engine,
        ...["run", "--detach", "--name", NAME],
        ...[bench.images.small, "sleep", "100000"],
      );
    }
    try {
      return await sideBySide(
        bench,
        {
          name: "`docker exec CONTAINER true`, whole command",
          unit: "ms",
          goal: { of: "ratio", is: "at most", value: 1 },
          plot: { group: "docker exec CONTAINER true", label: "hull" },
        },
        bench.peers,
        (engine) => timeCli(engine, ["exec", NAME, "true"]),
      );
    } finally {
      for (const engine of engines) {
        await cli(engine, "rm", "--force", NAME);
      }
    }
  },
};
