import { watch } from "node:fs";
import { connect, type Socket } from "node:net";
import { basename, dirname } from "node:path";

/** In case no change of the directory is told (inotify has limits), in ms. */
const RETRY_MS = 20;

/** Connects to a Unix socket. @throws the system's error, e.g. ENOENT or ECONNREFUSED */
export function connectSocket(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      resolve(socket);
    });
  });
}

/**
 * Connects to a socket that a starting process is about to make.
 * @returns undefined when `signal` was aborted before
 */
export async function connectWhenThere(
  path: string,
  signal: AbortSignal,
): Promise<Socket | undefined> {
  let wake: () => void = () => undefined;
  const watcher = watch(dirname(path), { persistent: false }, (_, name) => {
    if (name === null || name === basename(path)) wake();
  });
  watcher.on("error", () => undefined);
  const onAbort = () => wake();
  signal.addEventListener("abort", onAbort);
  try {
    while (!signal.aborted) {
      const changed = new Promise<void>((resolve) => (wake = resolve));
      try {
        return await connectSocket(path);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code !== "ENOENT" && code !== "ECONNREFUSED") throw error;
        // Refused: bound, but not listening yet, which takes it no time.
        const timer = setTimeout(
          () => wake(),
          code === "ENOENT" ? RETRY_MS : 1,
        );
        await changed;
        clearTimeout(timer);
      }
    }
    return undefined;
  } finally {
    signal.removeEventListener("abort", onAbort);
    watcher.close();
  }
}
