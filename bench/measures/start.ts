/** From the API's start to the first byte of the container's output, and where the time goes. */
import { readFile } from "node:fs/promises";
import { sideBySide, type Bench, type Measure } from "../bench.js";
import type { EngineApi } from "../engine-api.js";
import type { Engine } from "../engines/engine.js";
import { row, type Row } from "../rows.js";
import { summarize } from "../statistics.js";

export const startMeasure: Measure = {
  name: "start",
  async run(bench) {
    const peers = bench.peers.filter(({ api }) => api);
    const started: string[] = [];
    const rows = await sideBySide(
      bench,
      { name: "API start → first byte of output, cold boot", unit: "ms" },
      peers,
      async (engine: Engine) => {
        if (!engine.api) {
          throw new Error(`${engine.name} has no API`);
        }
        const { id, ms } = await firstByte(engine.api, bench.images.small);
        if (engine === bench.hull) {
          started.push(id);
        }
        return ms;
      },
    );
    return [...rows, ...(await spanRows(bench, started.slice(1)))];
  },
};

async function firstByte(
  api: EngineApi,
  image: string,
): Promise<{ id: string; ms: number }> {
  const id = await api.create(image, ["echo", "ready"]);
  const { socket, head } = await api.attach(id, false);
  const seen = new Promise<number>((resolve, reject) => {
    if (head.length > 0) {
      resolve(performance.now());
    }
    socket.once("data", () => resolve(performance.now()));
    socket.once("close", () => reject(new Error("no output came")));
  });
  const begin = performance.now();
  const [at] = await Promise.all([seen, api.start(id)]);
  await api.wait(id);
  socket.destroy();
  await api.remove(id);
  return { id, ms: at - begin };
}

/** A line of hull's log that tells of a start. */
interface StartLine {
  container?: string;
  spans?: { name: string; ms: number }[];
  setup?: { step: string; ms: number }[];
}

/** The daemon's own spans of the starts that were measured, one row a span. */
async function spanRows(
  bench: Bench,
  containers: readonly string[],
): Promise<Row[]> {
  const wanted = new Set(containers);
  const spans = new Map<string, number[]>();
  for (const text of (await readFile(bench.hull.log, "utf8")).split("\n")) {
    const line = parse(text);
    if (!line?.container || !wanted.has(line.container)) {
      continue;
    }
    const parts = [
      ...(line.spans ?? []),
      ...(line.setup ?? []).map(({ step, ms }) => ({
        name: `setup: ${step}`,
        ms,
      })),
    ];
    for (const { name, ms } of parts) {
      spans.set(name, [...(spans.get(name) ?? []), ms]);
    }
  }
  return [...spans].map(([name, samples]) =>
    row({ name: `– of this, ${name}`, unit: "ms", hull: summarize(samples) }),
  );
}

function parse(text: string): StartLine | undefined {
  try {
    return JSON.parse(text) as StartLine;
  } catch {
    return undefined;
  }
}
