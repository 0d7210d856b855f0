/** Whether and when a container that ended is started again (RestartPolicy of the Engine API). */
import type { ContainerRecord } from "./record.js";

const FIRST_DELAY = 100;
const MAX_DELAY = 60_000;

/** After its process ended. */
export function restartsAfterExit(record: ContainerRecord): boolean {
  const { state, hostConfig, restartCount } = record;
  const policy = hostConfig.RestartPolicy;
  if (state.manuallyStopped) return false;
  switch (policy?.Name) {
    case "always":
    case "unless-stopped":
      return true;
    case "on-failure":
      return (
        state.exitCode !== 0 &&
        (policy.MaximumRetryCount === 0 ||
          restartCount < policy.MaximumRetryCount)
      );
    default:
      return false;
  }
}

/** When the daemon starts and finds it stopped. */
export function startsWithDaemon(record: ContainerRecord): boolean {
  const name = record.hostConfig.RestartPolicy?.Name;
  const { status, manuallyStopped } = record.state;
  if (status !== "exited") return false;
  return name === "always" || (name === "unless-stopped" && !manuallyStopped);
}

/** Milliseconds before the next restart, when `quick` ones in a row came before: doubling, to a minute. */
export function restartDelay(quick: number): number {
  return Math.min(FIRST_DELAY * 2 ** quick, MAX_DELAY);
}
