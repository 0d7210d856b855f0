/** `docker save` and `docker load` of the large image. */
import { join } from "node:path";
import { sideBySide, type Measure } from "../bench.js";
import { timeCli } from "../engines/engine.js";
import { run } from "../processes.js";

/** These take seconds each: fewer samples say enough. */
const REPEATS = 3;
const MB = 1e6;

export const archivesMeasure: Measure = {
  name: "archives",
  async run(bench) {
    const peers = bench.peers.filter(({ api }) => api);
    const engines = [bench.hull, ...peers];
    const { large, largeImage } = bench.images;
    const size = `${(largeImage.compressedBytes / MB).toFixed(0)} MB compressed`;
    const folder = await bench.scratch.folder("archives");
    const fileOf = (name: string) => join(folder, name.replace(/\W+/g, "-"));
    for (const engine of engines) {
      await run(engine.pull(large), { env: engine.environment });
    }
    const rows = [
      ...(await sideBySide(
        bench,
        {
          name: `\`docker save\`, ${size}`,
          unit: "s",
          repeats: Math.min(REPEATS, bench.repeats),
        },
        peers,
        async (engine) => {
          const file = fileOf(engine.name);
          return (await timeCli(engine, ["save", "-o", file, large])) / 1e3;
        },
      )),
      ...(await sideBySide(
        bench,
        {
          name: `\`docker load\`, ${size}`,
          unit: "s",
          repeats: Math.min(REPEATS, bench.repeats),
        },
        peers,
        async (engine) => {
          const { environment: env } = engine;
          await run(engine.cli("rmi", large), { env });
          const file = fileOf(engine.name);
          return (await timeCli(engine, ["load", "-q", "-i", file])) / 1e3;
        },
      )),
    ];
    for (const engine of engines) {
      await run(engine.cli("rmi", large), { env: engine.environment });
    }
    return rows;
  },
};
