/** An engine under measurement: hull or a peer. */
import type { EngineApi } from "../engine-api.js";
import type { NetworkSpace } from "../network-space.js";
import { time, type RunOptions } from "../processes.js";
import type { Scratch } from "../scratch.js";

export interface Engine {
  /** With its version, as the table shows it. */
  readonly name: string;
  /** The command line of its CLI. */
  cli(...args: string[]): string[];
  /** The command line that pulls an image from the bench's registry. */
  pull(reference: string): string[];
  /** What its CLI needs in the environment. */
  readonly environment: Record<string, string>;
  /** Absent where the engine has no daemon. */
  readonly api?: EngineApi;
}

/** What an engine is started with. */
export interface Surroundings {
  scratch: Scratch;
  space: NetworkSpace;
}

/** An engine that cannot be measured on this machine, with why. */
export class Missing extends Error {}

/** Runs the engine's CLI to its end: milliseconds. */
export function timeCli(
  engine: Engine,
  args: string[],
  options: RunOptions = {},
): Promise<number> {
  return time(engine.cli(...args), { ...options, env: engine.environment });
}
