/** Ordinary containers, and what their machines may have before it is known which one it is. */
import {
  SETUP_DEFAULTS,
  type Furnish,
  type ShareSetup,
} from "../../protocol/index.js";
import type { Disk, Furnishing } from "../hypervisor/index.js";
import type { Container } from "./container.js";
import { hasTmpfs, initSpawn } from "./machine-spec.js";
import { ENGINE_FILES } from "./network-files.js";

/** What the agent is told. */
export function furnishOf({ program }: Furnishing): Furnish {
  return { paths: [...ENGINE_FILES], program };
}

/**
 * To be called once for each start, when it is certain that the container's disk will be put into a machine.
 * @returns undefined where the container is not ordinary, or its disk was used
 */
export function furnishingOf(
  container: Container,
  image: Disk,
  shares: readonly ShareSetup[],
): Furnishing | undefined {
  const { hostConfig: host, diskBytes } = container.record;
  const blank = container.takeBlankDisk();
  const ordinary =
    !host.Privileged &&
    (!host.ShmSize || host.ShmSize === SETUP_DEFAULTS.shmSize) &&
    shares.length === 0 &&
    !hasTmpfs(host);
  return blank && ordinary
    ? { image, blankBytes: diskBytes, program: programOf(container) }
    : undefined;
}

function programOf({ record }: Container): Furnishing["program"] {
  const { args, env } = initSpawn(record);
  const path = env.findLast((entry) => entry.startsWith("PATH="));
  return { name: args[0] ?? "", path: path?.slice("PATH=".length) ?? "" };
}
