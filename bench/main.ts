/** `make bench`: measures hull beside its peers, prints a table and writes build/bench.json. */
import { mkdir, writeFile } from "node:fs/promises";
import { arch, cpus, release, totalmem } from "node:os";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { Command, InvalidArgumentError, Option } from "commander";
import type { Bench, Measure } from "./bench.js";
import { startDockerd } from "./engines/dockerd.js";
import { Missing, type Engine, type Surroundings } from "./engines/engine.js";
import { startHulld } from "./engines/hulld.js";
import { findPodman } from "./engines/podman.js";
import { serveImages } from "./images.js";
import { agentMeasure } from "./measures/agent.js";
import { execMeasure } from "./measures/exec.js";
import { pullMeasure } from "./measures/pull.js";
import { runMeasure } from "./measures/run.js";
import { startMeasure } from "./measures/start.js";
import { streamsMeasure } from "./measures/streams.js";
import { NetworkSpace } from "./network-space.js";
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
];
const PEERS = { dockerd: startDockerd, podman: findPodman };
type PeerName = keyof typeof PEERS;

interface Options {
  repeats: number;
  only?: string[];
  peers: PeerName[];
  json: string;
  markdown: string;
  hulldFlag: string[];
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
    .option(
      "--markdown <file>",
      "where the table of a whole run goes",
      project("docs/bench/results.md"),
    )
    .option("--hulld-flag <flags...>", "hand these to hulld", [])
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
  const hull = await startHulld(surroundings, given.hulldFlag);
  const bench: Bench = {
    ...surroundings,
    images,
    hull,
    peers: await peers(given.peers, surroundings),
    repeats: given.repeats,
    say,
  };
  const engines = [hull, ...bench.peers];
  say(`measuring ${engines.map(({ name }) => name).join(", ")}`);
  for (const engine of engines) {
    await run(engine.pull(images.small), { env: engine.environment });
  }
  const rows: Row[] = [];
  for (const each of MEASURES) {
    if (!given.only || given.only.includes(each.name)) {
      rows.push(...(await each.run(bench)));
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
  const date = new Date().toISOString().slice(0, 10);
  const text = `${table(rows)}\n\nMedians and 90th percentiles, ${date}, ${machine()}.\n`;
  console.log(text);
  await write(given.json, `${JSON.stringify(rows, null, 2)}\n`);
  if (!given.only) {
    await write(given.markdown, text);
  }
}

await main().catch((error: unknown) => {
  console.error(
    `bench: ${error instanceof Error ? error.message : String(error)}`,
  );
  process.exitCode = 1;
});
