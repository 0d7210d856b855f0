/** One daemon for each data root. */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeSync,
} from "node:fs";
import path from "node:path";
import { Conflict, SystemError } from "../errors.js";

/** A data root that is ours until `release`, or until this process ends in whatever way. */
export interface Lock {
  release(): void;
}

/**
 * Locks a data root with flock(2), which the kernel gives back by itself: a killed daemon leaves no
 * stale lock. node has no flock; the program of util-linux locks the file we have open, and the lock
 * stays with our descriptor, which no child inherits.
 * @throws {Conflict} another daemon has it, by process ID
 */
export function lockDataRoot(dataRoot: string): Lock {
  const file = path.join(dataRoot, "hulld.lock");
  const descriptor = openSync(file, "a+", 0o600);
  const result = spawnSync("flock", ["--exclusive", "--nonblock", "3"], {
    stdio: ["ignore", "ignore", "pipe", descriptor],
    encoding: "utf8",
  });
  if (result.status !== 0) {
    closeSync(descriptor);
    if (result.error !== undefined) {
      throw new SystemError(
        `cannot lock ${file}: flock (util-linux): ${result.error.message}`,
      );
    }
    if (result.status === 1 && result.stderr === "") {
      const owner = readFileSync(file, "utf8").trim();
      throw new Conflict(
        `the data root ${dataRoot} is in use by another hulld${owner === "" ? "" : ` (process ${owner})`}`,
      );
    }
    throw new SystemError(`cannot lock ${file}: ${result.stderr.trim()}`);
  }
  ftruncateSync(descriptor, 0);
  writeSync(descriptor, `${process.pid}\n`);
  return { release: () => closeSync(descriptor) };
}
