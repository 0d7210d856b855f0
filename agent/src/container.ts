/**
 * The container this machine belongs to: made by `setup`, used by every process after it. What every
 * container has, whichever it is, is prepared before: the agent does so as soon as it has said hello, so that a
 * machine restored out of a template has it.
 */
import type { Furnish, Setup, SetupResult } from "../../protocol/index.js";
import { makeCgroup, removeCgroup, setLimits } from "./cgroup.js";
import { AT_FDCWD, CLOCK_MONOTONIC, O_RDWR } from "./constants.js";
import { filterDevices } from "./device-filter.js";
import { makeDevices, mountDevices, SHM_SIZE } from "./devices.js";
import { Failure, step } from "./failure.js";
import type { EventLoop } from "./loop.js";
import { machineIdFiles } from "./machine-id.js";
import { GuestNetwork } from "./network.js";
import {
  areDisksFree,
  areMounted,
  fillFiles,
  makeMountPoints,
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
  readonly furnished?: Furnish & { sysfs: string };
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
  furnish: Furnish,
  prepared: Prepared,
): Prepared {
  const { sysfs } = prepared.network;
  mountRoot(furnish.rootfs);
  mountDevices(SHM_SIZE, false);
  mountSys(sysfs, true);
  mountFiles(furnish.paths.map((path) => ({ path, content: "", mode: 0o644 })));
  return { ...prepared, furnished: { ...furnish, sysfs } };
}

/** Does everything of `setup`, in the order that safety asks for: clock and random numbers first. */
export function setUpContainer(
  setup: Setup,
  { network, terminals, furnished, ...prepared }: Prepared,
): {
  container: Container;
  result: SetupResult;
} {
  const timings: SetupResult["timings"] = [];
  const timed = <T>(name: string, run: () => T): T => {
    const start = sys.clock(CLOCK_MONOTONIC);
    const value = run();
    const us = Math.round((sys.clock(CLOCK_MONOTONIC) - start) * 1000);
    timings.push({ step: name, us });
    return value;
  };

  if (furnished) checkFurnished(setup, furnished);
  timed("clock", () => setClock(setup.time));
  timed("entropy", () => reseed(setup.entropy));
  timed("network", () => network.setUp(setup.network));
  let asFurnished = false;
  if (furnished) {
    const files = filesOf(setup);
    const ownSys = network.sysfs === furnished.sysfs;
    asFurnished = ownSys && areMounted(files);
    if (!ownSys) timed("sys", () => replaceSys(network.sysfs));
    timed("files", () => fillFiles(files));
  } else {
    timed("rootfs", () => mountRoot(setup.rootfs));
    timed("dev", () => mountDevices(setup.shmSize, setup.privileged));
    timed("sys", () => mountSys(network.sysfs, !setup.privileged));
    timed("mounts", () => setup.mounts.forEach(mountExtra));
    timed("files", () => mountFiles(filesOf(setup)));
  }
  const cgroup = timed("cgroup", () => {
    const made = setup.privileged
      ? replaceCgroup(prepared.cgroup)
      : prepared.cgroup;
    setLimits(setup.limits);
    return made;
  });
  return {
    container: { setup, network, cgroup, terminals, asFurnished },
    result: { timings },
  };
}

/** @throws {Failure} it is not the container that the machine is furnished for */
function checkFurnished(setup: Setup, { rootfs, paths }: Furnish): void {
  const fits =
    setup.rootfs.image === rootfs.image &&
    setup.rootfs.writable === rootfs.writable &&
    !setup.privileged &&
    setup.shmSize === SHM_SIZE &&
    setup.mounts.length === 0 &&
    paths.every((path) => setup.files.some((file) => file.path === path));
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

function filesOf({ files, machineId }: Setup): Setup["files"] {
  return [...files, ...machineIdFiles(machineId)];
}

/** @param time in ms since the epoch */
export function setClock(time: number): void {
  step("set the clock", () => sys.setClock(time));
}

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
    const random = sys.open(AT_FDCWD, "/dev/urandom", O_RDWR, 0);
    try {
      sys.addEntropy(random, bytes, 0, bytes.byteLength);
    } finally {
      sys.close(random);
    }
  });
}
