/** The process that serves a container's mounts to its guest: see share-server/main.c. */
import { spawn } from "node:child_process";
import { mkdir, open } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { SystemError } from "../errors.js";
import type { Export } from "./index.js";

/** How many mounts one server takes (HULL_MAX_EXPORTS). */
export const MAX_EXPORTS = 256;

export interface ShareServerOptions {
  /** The program. */
  binary: string;
  /** The machine's socket for it. */
  socket: string;
  /** A folder of the machine's own, for the server's log and root. */
  directory: string;
  /** The guest finds them as "0", "1", and so on. */
  exports: readonly Export[];
}

/**
 * Starts a server in a session of its own: it outlives the daemon, and ends when the machine does.
 * Resolves when the guest can be told to mount.
 * @throws {SystemError} what cannot be served, and why
 */
export async function startShareServer(
  options: ShareServerOptions,
): Promise<void> {
  const { binary, socket, directory, exports } = options;
  const scratch = path.join(directory, "share");
  await mkdir(scratch, { mode: 0o700 });
  const log = await open(path.join(directory, "share.log"), "a", 0o600);
  try {
    const child = spawn(
      binary,
      [socket, scratch, ...exports.flatMap(argumentsOf)],
      { cwd: "/", detached: true, stdio: ["ignore", "pipe", log.fd], env: {} },
    );
    child.unref();
    const stdout = child.stdout as Readable;
    const failed = new Promise<string>((resolve) => {
      child.once("error", (error) => resolve(error.message));
    });
    const said = createInterface({ input: stdout });
    const first = new Promise<string>((resolve) => {
      said.once("line", resolve);
      said.once("close", () => resolve("the server of the mounts ended"));
    });
    const answer = await Promise.race([failed, first]);
    said.close();
    stdout.destroy();
    if (answer !== "ready") throw new SystemError(answer);
  } finally {
    await log.close();
  }
}

function argumentsOf(one: Export): string[] {
  const letters = [
    one.readonly !== "no" ? "r" : "",
    one.readonly === "root" ? "f" : "",
    one.nonRecursive ? "a" : "",
  ].join("");
  return [letters || "-", one.path, one.below];
}
