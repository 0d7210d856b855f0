/**
 * Saves and loads the state of a machine's devices: QEMU's migration stream without the memory, which is
 * in a file that all share (capability `x-ignore-shared`).
 */
import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { rm } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { pipeline } from "node:stream/promises";
import { Unavailable } from "../../errors.js";
import type { QmpClient } from "./qmp.js";

/** How long QEMU may take for some 70 KB; a busy host is slow. In ms. */
const LIMIT_MS = 20_000;
/** The descriptor that `startProcess` hands down. */
const STATE_FD = 3;

const CAPABILITIES = {
  capabilities: ["x-ignore-shared", "events"].map((capability) => ({
    capability,
    state: true,
  })),
};

/**
 * Writes the state of a machine that stands still to a file. QEMU connects to a socket of ours: it is not
 * handed the file, since a descriptor can be handed to it only when it starts.
 * @param socketPath a path that is free, short enough for a socket
 * @returns the file's SHA-256 and its size
 * @throws {Unavailable} QEMU could not, or the file could not be written
 */
export async function saveState(
  qmp: QmpClient,
  file: string,
  socketPath: string,
): Promise<{ sha256: string; bytes: number }> {
  const server = createServer();
  try {
    const hash = createHash("sha256");
    let bytes = 0;
    const connected = new Promise<Socket>((resolve, reject) => {
      server.once("connection", resolve).once("error", reject);
    });
    await new Promise<void>((resolve) => server.listen(socketPath, resolve));
    const written = connected.then((socket) => {
      socket.on("data", (chunk: Buffer) => {
        hash.update(chunk);
        bytes += chunk.length;
      });
      return pipeline(socket, createWriteStream(file, { mode: 0o600 }));
    });
    written.catch(() => undefined);
    const done = migrated(qmp);
    await qmp.execute("migrate-set-capabilities", CAPABILITIES);
    await qmp.execute("migrate", { uri: `unix:${socketPath}` });
    await done;
    await written;
    return { sha256: hash.digest("hex"), bytes };
  } finally {
    server.close();
    await rm(socketPath, { force: true });
  }
}

/**
 * Loads the state that a clone's process was handed.
 * @throws {Unavailable} QEMU could not
 */
export async function loadState(qmp: QmpClient): Promise<void> {
  const done = migrated(qmp);
  await Promise.all([
    qmp.execute("migrate-set-capabilities", CAPABILITIES),
    qmp.execute("migrate-incoming", { uri: `fd:${STATE_FD}` }),
    done,
  ]);
}

function migrated(qmp: QmpClient): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (error?: string) => {
      clearTimeout(timer);
      stop();
      if (error === undefined) resolve();
      else reject(new Unavailable(`the machine's state: ${error}`));
    };
    const stop = qmp.onEvent(({ name, data }) => {
      if (name !== "MIGRATION") return;
      if (data["status"] === "completed") settle();
      else if (data["status"] === "failed") settle("QEMU cannot take it");
    });
    const timer = setTimeout(
      () => settle(`nothing within ${LIMIT_MS / 1000} s`),
      LIMIT_MS,
    );
    void qmp.closed.then(() => settle("QEMU ended"));
  });
}
