/** The ways a machine can come up, and the flags that leave hulld no faster one. */
import { Missing } from "./engines/engine.js";
import { startHulld, type Hulld } from "./engines/hulld.js";
import type { Bench } from "./bench.js";
import { run } from "./processes.js";

export interface StartWay {
  kind: "forked" | "restored" | "cold";
  flags: string[];
}

/** One machine stands ready: what is started right after it was taken finds none. */
export const FORKED: StartWay = {
  kind: "forked",
  flags: ["--warm", "1"],
};
/** No machine ever stands ready; what they are forked from does, where they are. */
export const WITHOUT_POOL: StartWay = {
  kind: "forked",
  flags: ["--warm", "0"],
};
export const RESTORED: StartWay = {
  kind: "restored",
  flags: ["--warm", "0", "--zygote", "off"],
};
export const COLD: StartWay = {
  kind: "cold",
  flags: ["--templates", "off"],
};

/**
 * A hulld beside the bench's own, with the small image pulled.
 * @returns undefined where this hulld cannot do it, which has then been said
 */
export async function startHulldFor(
  bench: Bench,
  name: string,
  flags: readonly string[],
  programs?: string,
): Promise<Hulld | undefined> {
  try {
    const hulld = await startHulld(bench, {
      name,
      flags: [...flags, ...bench.hulldFlags],
      ...(programs !== undefined && { programs }),
    });
    const pull = hulld.pull(bench.images.small);
    await run(pull, { env: hulld.environment });
    return hulld;
  } catch (error) {
    if (!(error instanceof Missing)) {
      throw error;
    }
    bench.say(`skipped: ${name} (${error.message})`);
    return undefined;
  }
}
