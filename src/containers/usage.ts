/** What a running container takes of its machine, and the machine of the host. */
import { setTimeout as delay } from "node:timers/promises";
import type { Usage } from "../../protocol/index.js";
import type { MachineCost } from "../hypervisor/index.js";
import type { Container } from "./container.js";
import { timestamp } from "./log/json-file.js";

export interface UsageSample {
  /** RFC 3339 with nanoseconds. */
  at: string;
  usage: Usage;
  cost: MachineCost | undefined;
}

/** How long a guest may take to answer, in ms. */
const LIMIT = 2000;

/**
 * A fresh sample. Of a paused container, whose guest stands still, and of a guest that does not answer
 * it is the last one with the host's cost of now.
 * @returns undefined when it does not run, or nothing is known of it
 */
export async function sampleUsage(
  container: Container,
): Promise<UsageSample | undefined> {
  const { machine, record } = container;
  if (!machine || !container.isRunning) return undefined;
  const usage =
    record.state.status === "paused"
      ? undefined
      : await within(machine.agent.request("usage", {}));
  const cost = await machine.cost();
  const known = usage ?? container.lastUsage?.usage;
  if (!known) return undefined;
  const own = new Set(
    record.endpoints.flatMap((end) => end.interface?.name ?? []),
  );
  const sample: UsageSample = {
    at: timestamp(),
    // A machine has network cards beyond those the container uses.
    usage: {
      ...known,
      interfaces: known.interfaces.filter(({ name }) => own.has(name)),
    },
    cost,
  };
  container.lastUsage = sample;
  return sample;
}

/** The answer, or undefined when it is late or a failure. */
async function within<T>(answer: Promise<T>): Promise<T | undefined> {
  const timer = new AbortController();
  try {
    return await Promise.race([
      answer.catch(() => undefined),
      delay(LIMIT, undefined, { signal: timer.signal }).catch(() => undefined),
    ]);
  } finally {
    timer.abort();
  }
}
