/** How fast a container reads, writes and makes files in a volume and in a bind mount. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { sideBySide, type Bench, type Measure } from "../bench.js";
import { timeCli, type Engine } from "../engines/engine.js";
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

export const volumesMeasure: Measure = {
  name: "volumes",
  async run(bench) {
    const engines: Engine[] = [bench.hull, ...bench.peers];
    const cli = (engine: Engine, ...args: string[]) =>
      run(engine.cli(...args), { env: engine.environment });
    const folder = path.join(bench.scratch.directory, "bind");
    for (const [index, engine] of engines.entries()) {
      const source = path.join(folder, String(index));
      await mkdir(source, { recursive: true });
      await cli(
        engine,
        ...["run", "--detach", "--name", NAME],
        ...["-v", `${VOLUME}:/volume`, "-v", `${source}:/bind`],
        ...[bench.images.small, "sleep", "100000"],
      );
    }
    try {
      return [...(await rows(bench, "volume")), ...(await rows(bench, "bind"))];
    } finally {
      for (const engine of engines) {
        await cli(engine, "rm", "--force", NAME);
        await cli(engine, "volume", "rm", "--force", VOLUME);
      }
    }
  },
};

/** The figures of one place; the time is that of the whole `docker exec`. */
async function rows(bench: Bench, place: string): Promise<Row[]> {
  const rate = (name: string, unit: string, amount: number, script: string) =>
    sideBySide(
      bench,
      { name: `${place}: ${name}`, unit, repeats: REPEATS },
      bench.peers,
      async (engine) => {
        const args = ["exec", NAME, "sh", "-c", script];
        return amount / ((await timeCli(engine, args)) / 1000);
      },
    );
  const file = `/${place}/file`;
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
      `i=0; while [ $i -lt ${FILES} ]; do echo x > /${place}/f$i; i=$((i+1)); done; rm /${place}/f*`,
    )),
  ];
}
