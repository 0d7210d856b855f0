/**
 * How fast a container reads, writes and makes files in a volume, in a bind mount, and beside them on its
 * own file system.
 */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { sideBySide, type Bench, type Measure } from "../bench.js";
import { Missing, timeCli, type Engine } from "../engines/engine.js";
import { PACKAGES, writeNodeProject } from "../node-project.js";
import { run } from "../processes.js";
import type { Row } from "../rows.js";

const NAME = "bench-volumes";
const VOLUME = "bench-volume";
const MB = 1e6;
const PIECES = 256;
const PIECE = 128 * 1024;
const FILES = 300;
/** These take a second each and more: fewer samples say enough. */
const REPEATS = 5;
const NPM_REPEATS = 3;
/** Where each is in the container. */
const PLACES = { volume: "/volume", bind: "/bind", "own disk": "/own" };

export const volumesMeasure: Measure = {
  name: "volumes",
  async run(bench) {
    const engines: Engine[] = [bench.hull, ...bench.peers];
    const cli = (engine: Engine, ...args: string[]) =>
      run(engine.cli(...args), { env: engine.environment });
    const image = await toolsOf(bench);
    for (const [index, engine] of engines.entries()) {
      const source = path.join(bench.scratch.directory, "bind", String(index));
      await mkdir(source, { recursive: true });
      await writeNodeProject(path.join(source, "project"));
      await run(engine.pull(image ?? bench.images.small), {
        env: engine.environment,
      });
      await cli(
        engine,
        // npm unpacks all archives at once, in memory.
        ...["run", "--detach", "--name", NAME, "--memory", "1g"],
        ...["-v", `${VOLUME}:/volume`, "-v", `${source}:/bind`],
        ...[image ?? bench.images.small, "sleep", "100000"],
      );
      await cli(
        engine,
        ...["exec", NAME, "sh", "-c"],
        "mkdir /own && cp -r /bind/project /own/ && cp -r /bind/project /volume/",
      );
    }
    try {
      const rows: Row[] = [];
      for (const [place, folder] of Object.entries(PLACES)) {
        rows.push(...(await fileRows(bench, place, folder)));
        if (image) rows.push(...(await npmRows(bench, place, folder)));
      }
      return rows;
    } finally {
      for (const engine of engines) {
        await cli(engine, "rm", "--force", NAME);
        await cli(engine, "volume", "rm", "--force", VOLUME);
      }
    }
  },
};

/** The image with Node.js; without it the rest is measured. */
async function toolsOf(bench: Bench): Promise<string | undefined> {
  try {
    return await bench.images.tools();
  } catch (error) {
    if (!(error instanceof Missing)) throw error;
    bench.say(`skipped: npm ci (${error.message})`);
    return undefined;
  }
}

/** The figures of one place; the time is that of the whole `docker exec`. */
async function fileRows(
  bench: Bench,
  place: string,
  folder: string,
): Promise<Row[]> {
  const rate = (name: string, unit: string, amount: number, script: string) =>
    sideBySide(
      bench,
      {
        name: `${place}: ${name}`,
        unit,
        repeats: Math.min(REPEATS, bench.repeats),
      },
      bench.peers,
      async (engine) => {
        const args = ["exec", NAME, "sh", "-c", script];
        return amount / ((await timeCli(engine, args)) / 1000);
      },
    );
  const file = `${folder}/file`;
  const megabytes = (PIECES * PIECE) / MB;
  return [
    ...(await rate(
      "sequential write, with fsync",
      "MB/s",
      megabytes,
      `dd if=/dev/zero of=${file} bs=${PIECE} count=${PIECES} conv=fsync 2>/dev/null`,
    )),
    ...(await rate(
      "sequential read",
      "MB/s",
      megabytes,
      `dd if=${file} of=/dev/null bs=${PIECE} 2>/dev/null`,
    )),
    ...(await rate(
      "files made",
      "a second",
      FILES,
      `i=0; while [ $i -lt ${FILES} ]; do echo x > ${folder}/f$i; i=$((i+1)); done; rm ${folder}/f[0-9]*`,
    )),
  ];
}

function npmRows(bench: Bench, place: string, folder: string): Promise<Row[]> {
  return sideBySide(
    bench,
    {
      name: `${place}: \`npm ci\` of ${PACKAGES} packages`,
      unit: "s",
      repeats: Math.min(NPM_REPEATS, bench.repeats),
    },
    bench.peers,
    async (engine) => {
      const script = `cd ${folder}/project && npm ci --offline --no-audit --no-fund --loglevel=error --cache /tmp/npm`;
      const args = ["exec", NAME, "sh", "-c", script];
      return (await timeCli(engine, args, { timeout: 600_000 })) / 1000;
    },
  );
}
