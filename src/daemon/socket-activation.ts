/** Sockets that systemd opened for us: sd_listen_fds(3). */
import { ConfigError } from "./config.js";

/** The first descriptor systemd passes. */
const FIRST = 3;

/**
 * The descriptors passed to this process.
 * @param wanted only this one
 * @throws {ConfigError} none was passed, or not the wanted one
 */
export function activatedSockets(
  wanted?: number,
  env: NodeJS.ProcessEnv = process.env,
  pid: number = process.pid,
): number[] {
  const count =
    Number(env["LISTEN_PID"]) === pid ? Number(env["LISTEN_FDS"]) : 0;
  const passed = Array.from(
    { length: Number.isInteger(count) ? Math.max(count, 0) : 0 },
    (_, index) => FIRST + index,
  );
  if (passed.length === 0) {
    throw new ConfigError(
      "no sockets found via socket activation: was the daemon started by systemd?",
    );
  }
  if (wanted === undefined) return passed;
  if (!passed.includes(wanted)) {
    throw new ConfigError(`systemd passed no socket as descriptor ${wanted}`);
  }
  return [wanted];
}
