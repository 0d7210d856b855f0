/**
 * The container this machine belongs to: made by `setup`, used by every process after it. What every
 * container has, whichever it is, is prepared before: the agent does so as soon as it has said hello, so that a
 * machine restored out of a template has it.
 */
import {
  SETUP_DEFAULTS,
  type FileSetup,
  type Furnish,
  type Setup,
  type SetupResult,
} from "../../protocol/index.js";
import { makeCgroup, removeCgroup, setLimits } from "./cgroup.js";
import { AT_FDCWD, CLOCK_MONOTONIC, O_RDWR } from "./constants.js";
import { filterDevices } from "./device-filter.js";
import { makeDevices, mountDevices } from "./devices.js";
import { Failure, step } from "./failure.js";
import type { EventLoop } from "./loop.js";
import { hasNoMachineId, machineIdFile } from "./machine-id.js";
import { GuestNetwork } from "./network.js";
import {
  areDisksFree,
  fillFiles,
  makeMountPoints,
  mountEmptyFiles,
  mountExtra,
  mountFiles,
  mountRoot,
  mountSys,
  removeRoot,
  replaceSys,
} from "./rootfs.js";

export interface Container {
  readonly setup: Setup;
  readonly network: GuestNetwork;
  /** Descriptor of the cgroup's folder. */
  readonly cgroup: number;
  /** Descriptor of its /dev/pts. */
  readonly terminals: number;
  /** Nothing was mounted but what was when the machine was furnished. */
  readonly asFurnished: boolean;
}

/** What is there before the container is known. */
export interface Prepared {
  readonly network: GuestNetwork;
  /** As a container's, see there. */
  readonly cgroup: number;
  readonly terminals: number;
  /** What of the container's own is there already. */
  readonly furnished?: Furnished;
}

interface Furnished {
  readonly paths: readonly string[];
  /** Whose devices are in its /sys. */
  readonly sysfs: string;
  readonly hasNoMachineId: boolean;
}

/** Once, and again after a container was removed. @throws {Failure} naming the step that failed */
export function prepareContainer(): Prepared {
  makeMountPoints();
  const network = new GuestNetwork();
  const terminals = makeDevices();
  const cgroup = makeCgroup();
  filterDevices(cgroup);
  return { network, cgroup, terminals };
}

/** Mounts the root of an ordinary container, whichever it will be. @throws {Failure} naming the step that failed */
export function furnishContainer(
  { paths }: Furnish,
  prepared: Prepared,
): Prepared {
  const { sysfs } = prepared.network;
  mountRoot(SETUP_DEFAULTS.rootfs);
  mountDevices(SETUP_DEFAULTS.shmSize, false);
  mountSys(sysfs, true);
  mountEmptyFiles(paths);
  return {
    ...prepared,
    furnished: { paths, sysfs, hasNoMachineId: hasNoMachineId() },
  };
}

/** Does everything of `setup`, in the order that safety asks for: clock and random numbers first. */
export function setUpContainer(
  setup: Setup,
  { network, cgroup: prepared, terminals, furnished }: Prepared,
): {
  container: Container;
  result: SetupResult;
} {
  const timings: SetupResult["timings"] = {};
  let before = sys.clock(CLOCK_MONOTONIC);
  const done = (step: string) => {
    const now = sys.clock(CLOCK_MONOTONIC);
    // An integer to the engine, too: any other number takes it far longer to write.
    timings[step] = Math.round((now - before) * 1000) | 0;
    before = now;
  };

  if (furnished) checkFurnished(setup, furnished);
  setClock(setup.time);
  done("clock");
  if (setup.entropy !== undefined) {
    reseed(setup.entropy);
    done("entropy");
  }
  network.setUp(setup.network);
  done("network");
  let asFurnished = false;
  if (furnished) {
    const ownSys = network.sysfs === furnished.sysfs;
    if (!ownSys) {
      replaceSys(network.sysfs);
      done("sys");
    }
    const areMounted = fillFiles(filesOf(setup, furnished));
    asFurnished = ownSys && areMounted;
    done("files");
  } else {
    const { shmSize, privileged, mounts } = { ...SETUP_DEFAULTS, ...setup };
    mountRoot(setup.rootfs ?? SETUP_DEFAULTS.rootfs);
    done("rootfs");
    mountDevices(shmSize, privileged);
    done("dev");
    mountSys(network.sysfs, !privileged);
    done("sys");
    mounts.forEach(mountExtra);
    done("mounts");
    mountFiles(filesOf(setup));
    done("files");
  }
  const cgroup = setup.privileged ? replaceCgroup(prepared) : prepared;
  if (setup.limits) setLimits(setup.limits);
  done("cgroup");
  return {
    container: { setup, network, cgroup, terminals, asFurnished },
    result: { timings },
  };
}

/** @throws {Failure} it is not the container that the machine is furnished for */
function checkFurnished(setup: Setup, { paths }: Furnished): void {
  const { rootfs, shmSize, mounts, files } = setup;
  const { image, writable } = SETUP_DEFAULTS.rootfs;
  const fits =
    (!rootfs || (rootfs.image === image && rootfs.writable === writable)) &&
    (shmSize === undefined || shmSize === SETUP_DEFAULTS.shmSize) &&
    (!mounts || mounts.length === 0) &&
    !setup.privileged &&
    paths.every((path, i) => files[i]?.path === path);
  if (!fits)
    throw new Failure(
      "invalid",
      "the machine is furnished for another container",
    );
}

/** By one without a filter of devices. */
function replaceCgroup(prepared: number): number {
  sys.close(prepared);
  removeCgroup();
  return makeCgroup();
}

/** How long the kernel may take to let go of a container's disks. */
const DISKS_TIMEOUT_MS = 5000;

/**
 * Undoes all of `prepareContainer` and `setUpContainer`, once no process of the container is left.
 * @throws {Failure} naming the step that failed; a disk is still in use
 */
export async function removeContainer(
  { setup, network, cgroup, terminals }: Container,
  loop: EventLoop,
): Promise<void> {
  sys.close(terminals);
  sys.close(cgroup);
  removeCgroup();
  removeRoot(setup);
  network.close();
  // The mounts of a process that has ended go by a timer of the kernel.
  for (let waited = 0; !areDisksFree(setup); waited += 5) {
    if (waited >= DISKS_TIMEOUT_MS)
      throw new Failure("system", "a disk is still in use", "EBUSY");
    await loop.pause(5);
  }
}

/** The engine's, and the machine ID where the image has none. */
function filesOf(
  { files, machineId }: Setup,
  furnished?: Furnished,
): FileSetup[] {
  if (!machineId) return files;
  const wanted = furnished ? furnished.hasNoMachineId : hasNoMachineId();
  return wanted ? [...files, machineIdFile(machineId)] : files;
}

/** @param time in ms since the epoch */
export function setClock(time: number): void {
  step("set the clock", () => sys.setClock(time));
}

/** Its descriptor, once it has been needed. */
let randomPool: number | undefined;

/** Base64 of 64 bytes. */
const ENTROPY_CHARACTERS = 88;

/**
 * The text itself goes into the pool: it is as random as what it stands for.
 * @param entropy at least 64 bytes, base64
 */
export function reseed(entropy: string): void {
  if (entropy.length < ENTROPY_CHARACTERS)
    throw new Failure("invalid", "entropy: at least 64 bytes are needed");
  const bytes = sys.encode(entropy);
  step("reseed the random pool", () => {
    randomPool ??= sys.open(AT_FDCWD, "/dev/urandom", O_RDWR, 0);
    sys.addEntropy(randomPool, bytes, 0, bytes.byteLength);
  });
}
