/** hull's warm pool: full again before a start is measured, as it is for a user who types. */
import type { Bench } from "./bench.js";
import type { Engine } from "./engines/engine.js";
import { sleep } from "./processes.js";

/** The default of `--warm`. */
const MACHINES = 2;
/** With another `--warm`, or on a host short of memory, it never has as many. */
const LIMIT_MS = 5000;
/** What the last start and its end left to do is done by then. */
const QUIET_MS = 300;

/** Does nothing for other engines than the bench's own hulld. */
export async function poolIsFull(bench: Bench, engine: Engine): Promise<void> {
  if (engine !== bench.hull) return;
  const deadline = Date.now() + LIMIT_MS;
  await sleep(QUIET_MS);
  while (Date.now() < deadline) {
    if ((await bench.hull.api.warmMachines()) >= MACHINES) return;
    await sleep(50);
  }
}
