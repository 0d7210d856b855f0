/** Ordinary containers, and what their machines may have before it is known which one it is. */
import {
  SETUP_DEFAULTS,
  type Furnish,
  type ShareSetup,
} from "../../protocol/index.js";
import type { Disk, Disks, Furnishing } from "../hypervisor/index.js";
import type { Container } from "./container.js";
import { hasTmpfs, initSpawn } from "./machine-spec.js";
import { ENGINE_FILES } from "./network-files.js";
import type { ContainerRecord } from "./record.js";

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
  const { hostConfig, diskBytes } = container.record;
  const blank = container.takeBlankDisk();
  return blank && shares.length === 0 && isOrdinary(hostConfig)
    ? { image, blankBytes: diskBytes, program: programOf(container) }
    : undefined;
}

/** The same of a container that is just being made, by which the machine for it can be told. */
export function likelyDisks(
  { hostConfig, diskBytes, mounts = [] }: ContainerRecord,
  image: Disk,
): Disks | undefined {
  return mounts.length === 0 && isOrdinary(hostConfig)
    ? { image, blankBytes: diskBytes }
    : undefined;
}

function isOrdinary(host: ContainerRecord["hostConfig"]): boolean {
  return (
    !host.Privileged &&
    (!host.ShmSize || host.ShmSize === SETUP_DEFAULTS.shmSize) &&
    !hasTmpfs(host)
  );
}

function programOf({ record }: Container): Furnishing["program"] {
  const { args, env } = initSpawn(record);
  const path = env.findLast((entry) => entry.startsWith("PATH="));
  return { name: args[0] ?? "", path: path?.slice("PATH=".length) ?? "" };
}
