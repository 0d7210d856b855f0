/** `docker cp`: one big file, and many small ones, into a running container and out of it. */
import { randomBytes } from "node:crypto";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { sideBySide, type Bench, type Measure } from "../bench.js";
import { type Engine, timeCli } from "../engines/engine.js";
import type { Row } from "../rows.js";

const BIG_BYTES = 100e6;
const FOLDERS = 100;
const FILES_A_FOLDER = 100;
const SMALL_BYTES = 100;
/** These take seconds each: fewer samples say enough. */
const REPEATS = 3;
const REPEATS_SMALL = 1;

export const copiesMeasure: Measure = {
  name: "cp",
  async run(bench) {
    const peers = bench.peers.filter(({ api }) => api);
    const source = await bench.scratch.folder("cp");
    await writeFile(join(source, "big"), randomBytes(BIG_BYTES));
    await smallFiles(join(source, "small"));
    const containers = new Map<Engine, string>();
    for (const engine of [bench.hull, ...peers]) {
      const command = ["sleep", "100000"];
      const id = await engine.api?.create(bench.images.small, command);
      if (!id) throw new Error(`${engine.name} has no API`);
      await engine.api?.start(id);
      containers.set(engine, id);
    }
    const rows: Row[] = [];
    for (const [what, words, repeats] of [
      ["big", "100 MB in one file", REPEATS],
      ["small", "10,000 files of 100 bytes", REPEATS_SMALL],
    ] as const) {
      const copies = new Map<Engine, number>();
      rows.push(
        ...(await sideBySide(
          bench,
          {
            name: `\`docker cp\` into a container, ${words}`,
            unit: "s",
            repeats: Math.min(repeats, bench.repeats),
          },
          peers,
          async (engine) => {
            // Every time to another place: to replace what is there is something else.
            const place = (copies.get(engine) ?? 0) + 1;
            copies.set(engine, place);
            const to = `${containers.get(engine)}:/${what}-${place}`;
            return (
              (await timeCli(engine, ["cp", join(source, what), to])) / 1e3
            );
          },
        )),
        ...(await out(bench, peers, containers, what, words, repeats)),
      );
    }
    for (const [engine, id] of containers) await engine.api?.remove(id);
    return rows;
  },
};

/** Out of the container again; what was written goes between two samples. */
function out(
  bench: Bench,
  peers: readonly Engine[],
  containers: ReadonlyMap<Engine, string>,
  what: string,
  words: string,
  repeats: number,
): Promise<Row[]> {
  const target = join(bench.scratch.directory, "cp-out");
  return sideBySide(
    bench,
    {
      name: `\`docker cp\` out of a container, ${words}`,
      unit: "s",
      repeats: Math.min(repeats, bench.repeats),
    },
    peers,
    async (engine) => {
      const from = `${containers.get(engine)}:/${what}-1`;
      const ms = await timeCli(engine, ["cp", from, target]);
      await rm(target, { recursive: true });
      return ms / 1e3;
    },
  );
}

async function smallFiles(folder: string): Promise<void> {
  for (let i = 0; i < FOLDERS; i++) {
    const inner = join(folder, String(i));
    await mkdir(inner, { recursive: true });
    for (let j = 0; j < FILES_A_FOLDER; j++) {
      await writeFile(join(inner, String(j)), randomBytes(SMALL_BYTES));
    }
  }
}
