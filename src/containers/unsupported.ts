/**
 * What a HostConfig may say that has no meaning for a machine of its own: refused by name where a user would
 * rely on it, or taken without effect and said so in the answer's Warnings, as Docker does.
 */
import { InvalidParameter, NotFound, NotImplemented } from "../errors.js";
import type { HostConfig } from "./create-request.js";

const NO_HOST = "a machine has no CPUs or disks of the host";

/** Why it cannot be; see the test for what the other fields are. */
const REFUSED = {
  BlkioWeight: NO_HOST,
  BlkioWeightDevice: NO_HOST,
  BlkioDeviceReadBps: NO_HOST,
  BlkioDeviceWriteBps: NO_HOST,
  BlkioDeviceReadIOps: NO_HOST,
  BlkioDeviceWriteIOps: NO_HOST,
  CpusetCpus: NO_HOST,
  CpusetMems: NO_HOST,
  CpuRealtimePeriod: "the guest's kernel has no real-time groups",
  CpuRealtimeRuntime: "the guest's kernel has no real-time groups",
  DeviceCgroupRules: "a machine has no devices of the host",
  StorageOpt: "all writable disks have the size of the setting disk-size",
} as const satisfies Partial<Record<keyof HostConfig, string>>;

/** In the words Docker has for a kernel that cannot do it, where it has some. */
const WITHOUT_EFFECT = {
  OomKillDisable:
    "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
  MemorySwappiness:
    "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
  KernelMemoryTCP:
    "Your kernel does not support kernel memory TCP limit capabilities or the cgroup is not mounted. Limitation discarded.",
  CgroupParent:
    "The container's cgroup is in its machine. Cgroup parent discarded.",
} as const satisfies Partial<Record<keyof HostConfig, string>>;

/**
 * @throws {NotImplemented} naming the field
 * @throws {NotFound} a driver of volumes that is not there
 * @throws {InvalidParameter} it is another system's
 */
export function refuseImpossible(host: Partial<HostConfig>): void {
  for (const [field, why] of Object.entries(REFUSED)) {
    if (isGiven(host[field])) {
      throw new NotImplemented(
        `hull does not support HostConfig.${field}: ${why}`,
      );
    }
  }
  const { Isolation, MemorySwappiness, VolumeDriver } = host;
  if (Isolation && Isolation !== "default") {
    throw new InvalidParameter(
      `invalid isolation (${Isolation}): linux only supports 'default'`,
    );
  }
  if (VolumeDriver && VolumeDriver !== "local") {
    throw new NotFound(
      `error looking up volume plugin ${VolumeDriver}: plugin "${VolumeDriver}" not found`,
    );
  }
  if (
    MemorySwappiness !== undefined &&
    !(MemorySwappiness >= 0 && MemorySwappiness <= 100)
  ) {
    throw new InvalidParameter(
      `invalid value: ${MemorySwappiness}, valid memory swappiness range is 0-100`,
    );
  }
}

/** For the answer to `POST /containers/create`. */
export function warningsOf(host: HostConfig): string[] {
  return Object.entries(WITHOUT_EFFECT).flatMap(([field, warning]) =>
    // 0 is a swappiness, too.
    isGiven(host[field]) || (field === "MemorySwappiness" && host[field] === 0)
      ? [warning]
      : [],
  );
}

function isGiven(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return Boolean(value);
  return Object.keys(value).length > 0;
}
