/** The classic builder: ten steps, three of which run something. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { sideBySide, type Measure } from "../bench.js";
import { type Engine, timeCli } from "../engines/engine.js";
import { run } from "../processes.js";

/** These take seconds each: fewer samples say enough. */
const REPEATS = 3;
const TAG = "bench-built:1";

export const buildMeasure: Measure = {
  name: "build",
  async run(bench) {
    const peers = bench.peers.filter(({ api }) => api);
    const context = await bench.scratch.folder("build");
    await writeFile(join(context, "file"), "text\n");
    await writeFile(
      join(context, "Dockerfile"),
      [
        `FROM ${bench.images.small}`,
        "ENV A=b",
        "WORKDIR /work",
        "COPY file /work/",
        "RUN mkdir /made",
        "RUN cp /work/file /made/",
        "RUN echo text > /made/text",
        "LABEL made=here",
        "EXPOSE 80",
        'CMD ["cat", "/made/file"]',
        "",
      ].join("\n"),
    );
    const build = async (engine: Engine, ...flags: string[]) => {
      const args = ["build", "-q", "-t", TAG, ...flags, context];
      const environment = { ...engine.environment, DOCKER_BUILDKIT: "0" };
      return (await timeCli({ ...engine, environment }, args)) / 1e3;
    };
    const rows = [
      ...(await sideBySide(
        bench,
        {
          name: "`docker build` of ten steps, without the cache",
          unit: "s",
          repeats: Math.min(REPEATS, bench.repeats),
        },
        peers,
        (engine) => build(engine, "--no-cache"),
      )),
      ...(await sideBySide(
        bench,
        {
          name: "`docker build` of ten steps, all of them in the cache",
          unit: "s",
          repeats: Math.min(REPEATS, bench.repeats),
        },
        peers,
        (engine) => build(engine),
      )),
    ];
    for (const engine of [bench.hull, ...peers]) {
      const { environment: env } = engine;
      await run(engine.cli("rmi", TAG), { env });
      await run(engine.cli("image", "prune", "-f"), { env });
    }
    return rows;
  },
};
