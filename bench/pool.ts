/** hull's warm pool: full again before a start is measured, as it is for a user who types; or just emptied. */
import type { Bench } from "./bench.js";
import type { Engine } from "./engines/engine.js";
import type { EngineApi } from "./engine-api.js";
import { firstByte, type FirstByte } from "./first-byte.js";
import { sleep } from "./processes.js";

/** The default of `--warm`. */
const MACHINES = 2;
/** One for any container, and one for those of the image that was used last. */
const ZYGOTES = 2;
/** With another `--warm`, or on a host short of memory, it never has as many. */
const LIMIT_MS = 5000;
/** What the last start and its end left to do is done by then. */
const QUIET_MS = 300;

/** Does nothing for other engines than the bench's own hulld. */
export async function poolIsFull(bench: Bench, engine: Engine): Promise<void> {
  if (engine === bench.hull) await filled(bench.hull.api, MACHINES);
}

/** What machines are forked from is there, or will never be: before the first start one of the two is missing. */
export async function zygotesAreThere(api: EngineApi): Promise<void> {
  await reached(() => api.zygotes(), ZYGOTES);
}

/** The first byte of a start that finds the pool empty: a daemon with `--warm 1` uses its machine just before. */
export async function firstByteAfterAnother(
  api: EngineApi,
  image: string,
): Promise<FirstByte> {
  await filled(api, 1);
  const other = await api.create(image, ["true"]);
  const sample = await firstByte(api, image, true, () => api.start(other));
  await api.wait(other);
  await api.remove(other);
  return sample;
}

async function filled(api: EngineApi, machines: number): Promise<void> {
  await reached(() => api.warmMachines(), machines);
}

async function reached(
  count: () => Promise<number>,
  enough: number,
): Promise<void> {
  const deadline = Date.now() + LIMIT_MS;
  await sleep(QUIET_MS);
  while (Date.now() < deadline) {
    if ((await count()) >= enough) return;
    await sleep(50);
  }
}
