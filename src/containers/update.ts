/** `docker update`: limits and the restart policy of a container that is there already. */
import type { z } from "zod";
import type { Limits } from "../../protocol/index.js";
import { Conflict, HullError, InvalidParameter } from "../errors.js";
import { faultPoint } from "../fault.js";
import type { Container } from "./container.js";
import { hostConfigSchema, type HostConfig } from "./create-request.js";
import { limitsOf } from "./machine-spec.js";
import { checkResources, checkRestartPolicy } from "./resources.js";
import { answerWithin, CHANGE_LIMIT } from "./run/within.js";
import { refuseImpossible } from "./unsupported.js";
import { sampleUsage } from "./usage.js";

const MiB = 1024 * 1024;

/** The body of `POST /containers/{id}/update`; 0 and "" mean "as it is". */
export const updateRequestSchema = hostConfigSchema
  .pick({
    Memory: true,
    MemorySwap: true,
    MemoryReservation: true,
    NanoCpus: true,
    CpuShares: true,
    CpuPeriod: true,
    CpuQuota: true,
    PidsLimit: true,
    RestartPolicy: true,
    CpusetCpus: true,
    CpusetMems: true,
    BlkioWeight: true,
    BlkioWeightDevice: true,
    BlkioDeviceReadBps: true,
    BlkioDeviceWriteBps: true,
    BlkioDeviceReadIOps: true,
    BlkioDeviceWriteIOps: true,
    CpuRealtimePeriod: true,
    CpuRealtimeRuntime: true,
    DeviceCgroupRules: true,
  })
  .strip();
export type UpdateRequest = z.output<typeof updateRequestSchema>;

/**
 * Sets what is given, in the record and in the running machine, or nothing at all.
 * @throws {InvalidParameter} a value that cannot be, or that the running machine is too small for
 * @throws {Conflict} the container's state or its other settings do not allow it
 */
export function updateContainer(
  container: Container,
  request: UpdateRequest,
): Promise<void> {
  return container.exclusive(async () => {
    const { record } = container;
    const { status } = record.state;
    if (status === "removing" || status === "dead") {
      throw cannot(
        container,
        new Conflict('Container is marked for removal and cannot be "update".'),
      );
    }
    const next = merged(record.hostConfig, request);
    try {
      const before = record.hostConfig;
      checkConflicts(before, request);
      const limits = container.isRunning ? changed(request, next) : {};
      if (Object.keys(limits).length > 0) await checkMachine(container, limits);
      // The record first: a daemon that is killed before the machine has the limits leaves it to the next one.
      record.hostConfig = next;
      try {
        await container.save();
        faultPoint("update.recorded");
        await setLimits(container, limits);
        faultPoint("update.applied");
      } catch (error) {
        record.hostConfig = before;
        await container.save();
        throw error;
      }
    } catch (error) {
      throw cannot(container, error);
    }
  });
}

/**
 * Sets the record's limits in a machine that was taken over: a daemon that was killed within an update had
 * recorded them, and may not have set them.
 */
export async function setRecordedLimits(container: Container): Promise<void> {
  const { hostConfig } = container.record;
  await setLimits(container, changed(hostConfig, hostConfig));
}

/** The settings with the request's in their place. */
function merged(host: HostConfig, request: UpdateRequest): HostConfig {
  refuseImpossible(request);
  const next = { ...host };
  for (const name of [
    "Memory",
    "MemorySwap",
    "MemoryReservation",
    "NanoCpus",
    "CpuShares",
    "CpuPeriod",
    "CpuQuota",
    "PidsLimit",
  ] as const) {
    if (request[name]) next[name] = request[name];
  }
  if (request.RestartPolicy?.Name) {
    checkRestartPolicy(request.RestartPolicy, false);
    next.RestartPolicy = request.RestartPolicy;
  }
  checkResources(next);
  return next;
}

/** The rules of moby container/container_unix.go. */
function checkConflicts(host: HostConfig, request: UpdateRequest): void {
  const policy = request.RestartPolicy?.Name;
  if (host.AutoRemove && policy && policy !== "no") {
    throw new Conflict(
      "Restart policy cannot be updated because AutoRemove is enabled for the container",
    );
  }
  if (request.NanoCpus && host.CpuPeriod) {
    throw new Conflict(
      "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
    );
  }
  if (request.NanoCpus && host.CpuQuota) {
    throw new Conflict(
      "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
    );
  }
  if (request.CpuPeriod && host.NanoCpus) {
    throw new Conflict(
      "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
    );
  }
  if (request.CpuQuota && host.NanoCpus) {
    throw new Conflict(
      "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
    );
  }
  const { MemorySwap = 0 } = host;
  if (
    MemorySwap > 0 &&
    (request.Memory ?? 0) > MemorySwap &&
    !request.MemorySwap
  ) {
    throw new Conflict(
      "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
    );
  }
}

/** The limits that a request changes, those included that it takes away. */
function changed(request: UpdateRequest, next: HostConfig): Limits {
  const limits = limitsOf({ ...request, RestartPolicy: undefined });
  if ((request.PidsLimit ?? 0) < 0) limits.pids = -1;
  if ((request.CpuQuota ?? 0) < 0) limits.cpuQuotaUs = -1;
  if (request.CpuPeriod && next.CpuQuota && next.CpuQuota > 0) {
    limits.cpuQuotaUs = next.CpuQuota;
    limits.cpuPeriodUs = request.CpuPeriod;
  }
  if (limits.memorySwapBytes !== undefined && next.Memory) {
    limits.memoryBytes = next.Memory;
  }
  return limits;
}

/** @throws as `updateContainer` */
async function checkMachine(
  container: Container,
  limits: Limits,
): Promise<void> {
  if (container.record.state.status === "paused") {
    throw new Conflict(
      "its machine stands still: unpause the container before its limits are changed",
    );
  }
  await checkFits(container, limits);
}

/** Sets limits in the machine that runs. */
async function setLimits(container: Container, limits: Limits): Promise<void> {
  const { machine } = container;
  if (!machine || Object.keys(limits).length === 0) return;
  await answerWithin(
    machine.agent.request("limit", { limits }),
    "limit",
    CHANGE_LIMIT,
  );
}

/** A machine keeps the size it was started with. */
async function checkFits(container: Container, limits: Limits): Promise<void> {
  const machine = (await sampleUsage(container))?.usage.machine;
  if (!machine) return;
  const { memoryBytes = 0, cpuQuotaUs = 0, cpuPeriodUs = 1 } = limits;
  const again = "stop the container, update it and start it again";
  if (memoryBytes > machine.memoryBytes) {
    throw new InvalidParameter(
      `Memory: ${mebibytes(memoryBytes)} are more than the ${mebibytes(machine.memoryBytes)} of the machine it runs in: ${again}`,
    );
  }
  if (cpuQuotaUs > machine.cpus * cpuPeriodUs) {
    throw new InvalidParameter(
      `CPUs: ${cpuQuotaUs / cpuPeriodUs} are more than the ${machine.cpus} of the machine it runs in: ${again}`,
    );
  }
}

function mebibytes(bytes: number): string {
  return `${Math.floor(bytes / MiB)} MiB`;
}

/** Docker's words around any reason. */
function cannot(container: Container, reason: unknown): unknown {
  if (reason instanceof HullError) {
    reason.message = `Cannot update container ${container.id}: ${reason.message}`;
  }
  return reason;
}
