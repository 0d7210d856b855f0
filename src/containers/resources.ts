/** Which limits and restart policies can be: checked when a container is made and when it is updated. */
import { cpus } from "node:os";
import { InvalidParameter } from "../errors.js";
import type { HostConfig, RestartPolicy } from "./create-request.js";

/** Docker's smallest memory limit. */
const MIN_MEMORY = 6 * 1024 * 1024;
const RESTART_POLICIES = ["", "no", "always", "unless-stopped", "on-failure"];

/** @throws {InvalidParameter} in Docker's words */
export function checkResources(host: HostConfig): void {
  const { Memory, MemorySwap, MemoryReservation } = host;
  const { NanoCpus, CpuPeriod, CpuQuota, PidsLimit, OomScoreAdj } = host;
  if (Memory !== undefined && Memory !== 0 && Memory < MIN_MEMORY) {
    throw new InvalidParameter("Minimum memory limit allowed is 6MB");
  }
  if (MemorySwap && MemorySwap > 0 && MemorySwap < (Memory ?? 0)) {
    throw new InvalidParameter(
      "Minimum memoryswap limit should be larger than memory limit, see usage",
    );
  }
  if (MemorySwap && MemorySwap > 0 && !Memory) {
    throw new InvalidParameter(
      "You should always set the Memory limit when using Memoryswap limit, see usage",
    );
  }
  if (MemoryReservation && MemoryReservation < MIN_MEMORY) {
    throw new InvalidParameter("Minimum memory reservation allowed is 6MB");
  }
  if (Memory && MemoryReservation && MemoryReservation > Memory) {
    throw new InvalidParameter(
      "Minimum memory limit can not be less than memory reservation limit, see usage",
    );
  }
  const available = cpus().length;
  if (NanoCpus && (NanoCpus < 0 || NanoCpus > available * 1e9)) {
    throw new InvalidParameter(
      `range of CPUs is from 0.01 to ${available}.00, as there are only ${available} CPUs available`,
    );
  }
  if (NanoCpus && (CpuPeriod || CpuQuota)) {
    throw new InvalidParameter(
      "Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set",
    );
  }
  if (CpuPeriod && (CpuPeriod < 1000 || CpuPeriod > 1000000)) {
    throw new InvalidParameter(
      "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
    );
  }
  if (CpuQuota && CpuQuota > 0 && CpuQuota < 1000) {
    throw new InvalidParameter(
      "CPU cfs quota can not be less than 1ms (i.e. 1000)",
    );
  }
  if (CpuQuota && CpuQuota > (CpuPeriod || 100_000) * available) {
    throw new InvalidParameter(
      `CpuQuota asks for more than the ${available} CPUs available`,
    );
  }
  if (OomScoreAdj && Math.abs(OomScoreAdj) > 1000) {
    throw new InvalidParameter(
      `Invalid value ${OomScoreAdj}, range for oom score adj is [-1000, 1000]`,
    );
  }
  if (PidsLimit !== undefined && PidsLimit < -1) {
    throw new InvalidParameter("PidsLimit can not be less than -1");
  }
}

/** @throws {InvalidParameter} in Docker's words */
export function checkRestartPolicy(
  policy: RestartPolicy | undefined,
  autoRemove: boolean,
): void {
  if (!policy) return;
  const { Name, MaximumRetryCount } = policy;
  if (!RESTART_POLICIES.includes(Name)) {
    throw new InvalidParameter(
      `invalid restart policy: unknown policy '${Name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'`,
    );
  }
  if (MaximumRetryCount < 0) {
    throw new InvalidParameter(
      "invalid restart policy: maximum retry count cannot be negative",
    );
  }
  if (autoRemove && Name !== "" && Name !== "no") {
    throw new InvalidParameter(
      "can't create 'AutoRemove' container with restart policy",
    );
  }
  if (MaximumRetryCount > 0 && Name !== "on-failure") {
    throw new InvalidParameter(
      "invalid restart policy: maximum retry count can only be used with 'on-failure'",
    );
  }
}
