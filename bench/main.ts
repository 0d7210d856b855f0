/** `make bench`: measures hull beside its peers, prints a table and writes build/bench.json. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { arch, cpus, release, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command, InvalidArgumentError, Option } from "commander";
import type { Bench, Measure } from "./bench.js";
import { startDockerd } from "./engines/dockerd.js";
import { Missing, type Engine, type Surroundings } from "./engines/engine.js";
import { startHulld } from "./engines/hulld.js";
import { findPodman } from "./engines/podman.js";
import { serveImages } from "./images.js";
import { agentMeasure } from "./measures/agent.js";
import { archivesMeasure } from "./measures/archives.js";
import { buildMeasure } from "./measures/build.js";
import { composeMeasure } from "./measures/compose.js";
import { copiesMeasure } from "./measures/copies.js";
import { densityMeasure } from "./measures/density.js";
import { execMeasure } from "./measures/exec.js";
import {
  BASELINE,
  type Baseline,
  instructionsMeasure,
} from "./measures/instructions.js";
import { listMeasure } from "./measures/list.js";
import { networkMeasure } from "./measures/network.js";
import { parallelMeasure } from "./measures/parallel.js";
import { pullMeasure } from "./measures/pull.js";
import { runMeasure } from "./measures/run.js";
import { startMeasure } from "./measures/start.js";
import { streamsMeasure } from "./measures/streams.js";
import { volumesMeasure } from "./measures/volumes.js";
import { NetworkSpace } from "./network-space.js";
import { plot } from "./plot.js";
import { run } from "./processes.js";
import { table, type Row } from "./rows.js";
import { Scratch } from "./scratch.js";

const MEASURES: readonly Measure[] = [
  agentMeasure,
  runMeasure,
  startMeasure,
  execMeasure,
  streamsMeasure,
  pullMeasure,
  parallelMeasure,
  densityMeasure,
  instructionsMeasure,
  volumesMeasure,
  networkMeasure,
  composeMeasure,
  copiesMeasure,
  buildMeasure,
  archivesMeasure,
  listMeasure,
];
const PEERS = { dockerd: startDockerd, podman: findPodman };
type PeerName = keyof typeof PEERS;

interface Options {
  repeats: number;
  only?: string[];
  peers: PeerName[];
  density: number[];
  json: string;
  docs?: string;
  hulldFlag: string[];
  updateBaseline: boolean;
}

const project = (path: string) =>
  fileURLToPath(new URL(`../${path}`, import.meta.url));

function options(): Options {
  return new Command("bench")
    .description("Measures hull beside dockerd and podman, where they are.")
    .addOption(
      new Option("--repeats <n>", "samples of each figure")
        .default(15)
        .argParser((text) => {
          const repeats = Number(text);
          if (!Number.isInteger(repeats) || repeats < 1) {
            throw new InvalidArgumentError("expected a whole number from 1");
          }
          return repeats;
        }),
    )
    .addOption(
      new Option("--only <measures...>", "leave out the others").choices(
        MEASURES.map(({ name }) => name),
      ),
    )
    .addOption(
      new Option("--peers <peers...>", "whom to measure beside hull")
        .choices([...Object.keys(PEERS), "none"])
        .default(Object.keys(PEERS), "all"),
    )
    .option(
      "--json <file>",
      "where the rows go as JSON",
      project("build/bench.json"),
    )
    .addOption(
      new Option(
        "--density <containers>",
        "how many idle containers to measure among, separated by commas",
      )
        .default([0, 50, 100], "0,50,100")
        .argParser((text) => {
          const levels = text.split(",").map(Number);
          if (!levels.every((one) => Number.isInteger(one) && one >= 0)) {
            throw new InvalidArgumentError("expected numbers, e.g. 0,50,100");
          }
          return levels.sort((a, b) => a - b);
        }),
    )
    .option(
      "--docs <folder>",
      "where results.md and results.svg go (default: of a whole run, docs/bench)",
    )
    .option(
      "--hulld-flag <flag>",
      "hand this to hulld; repeatable (--hulld-flag=--memory=256m)",
      (flag: string, before: string[]) => [...before, flag],
      [],
    )
    .option(
      "--update-baseline",
      "keep the instruction counts of this run as what later ones are held to",
      false,
    )
    .parse()
    .opts<Options>();
}

function say(text: string): void {
  console.error(`bench: ${text}`);
}

async function peers(
  names: readonly PeerName[],
  surroundings: Surroundings,
): Promise<Engine[]> {
  const found: Engine[] = [];
  for (const name of names.filter((name) => name in PEERS)) {
    try {
      found.push(await PEERS[name](surroundings));
    } catch (error) {
      if (!(error instanceof Missing)) {
        throw error;
      }
      say(`skipped: ${name} (${error.message})`);
    }
  }
  return found;
}

async function measure(scratch: Scratch, given: Options): Promise<Row[]> {
  const space = await NetworkSpace.make(scratch);
  const surroundings = { scratch, space };
  say("making images");
  const images = await serveImages(scratch, space);
  const hull = await startHulld(surroundings, {
    name: "hull",
    flags: given.hulldFlag,
  });
  const bench: Bench = {
    ...surroundings,
    images,
    hull,
    peers: await peers(given.peers, surroundings),
    hulldFlags: given.hulldFlag,
    repeats: given.repeats,
    density: given.density,
    say,
  };
  const engines = [hull, ...bench.peers];
  say(`measuring ${engines.map(({ name }) => name).join(", ")}`);
  for (const engine of engines) {
    await run(engine.pull(images.small), { env: engine.environment });
  }
  const rows: Row[] = [];
  for (const each of MEASURES) {
    if (given.only && !given.only.includes(each.name)) continue;
    try {
      rows.push(...(await each.run(bench)));
    } catch (error) {
      if (!(error instanceof Missing)) throw error;
      say(`skipped: ${each.name} (${error.message})`);
    }
  }
  return rows;
}

function machine(): string {
  const [cpu] = cpus();
  const memory = (totalmem() / 2 ** 30).toFixed(0);
  return `${cpus().length} × ${cpu?.model.trim() ?? arch()}, ${memory} GiB, Linux ${release()}`;
}

async function write(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
  say(`wrote ${path}`);
}

async function main(): Promise<void> {
  const given = options();
  const scratch = await Scratch.make();
  const interrupted = new Promise<never>((_, reject) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      process.once(signal, () => reject(new Error(`ended by ${signal}`)));
    }
  });
  let rows: Row[];
  try {
    rows = await Promise.race([measure(scratch, given), interrupted]);
  } finally {
    await scratch.clean();
  }
  const missed = rows.filter(
    ({ mandatory, met }) => mandatory && met === false,
  );
  const date = new Date().toISOString().slice(0, 10);
  const caption = `Medians and 90th percentiles, ${date}, ${machine()}`;
  const text = report(rows, caption);
  console.log(text);
  await write(given.json, `${JSON.stringify(rows, null, 2)}\n`);
  const docs = given.docs ?? (given.only ? undefined : project("docs/bench"));
  if (docs !== undefined) {
    await write(join(docs, "results.md"), text);
    await write(join(docs, "results.svg"), plot(rows, caption));
  }
  if (given.updateBaseline) {
    await updateBaseline(rows);
  } else {
    for (const { name } of missed) say(`regression: ${name}`);
    if (missed.length > 0) process.exitCode = 1;
  }
}

function report(rows: readonly Row[], caption: string): string {
  const figures = rows.filter(({ detail }) => !detail);
  const details = rows.filter(({ detail }) => detail);
  return [
    "# Results",
    "",
    "![The same as bars](results.svg)",
    "",
    table(figures),
    "",
    ...(details.length > 0
      ? [
          "## Where the time of a start goes",
          "",
          "Parts overlap where things are done side by side; see [traces](../observability.md).",
          "",
          table(details),
          "",
        ]
      : []),
    `${caption}.`,
    "",
  ].join("\n");
}

/** Counts that were not taken keep their place. */
async function updateBaseline(rows: readonly Row[]): Promise<void> {
  const kept = JSON.parse(await readFile(BASELINE, "utf8")) as Baseline;
  for (const { key, hull } of rows) {
    const kind = /^instructions\.(.+)$/.exec(key ?? "")?.[1];
    if (kind === "cold" || kind === "restored") {
      kept[kind] = Math.round(hull * 1000) / 1000;
    }
  }
  await write(BASELINE, `${JSON.stringify(kept, null, 2)}\n`);
}

await main().catch((error: unknown) => {
  console.error(
    `bench: ${error instanceof Error ? error.message : String(error)}`,
  );
  process.exitCode = 1;
});
