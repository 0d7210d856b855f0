/**
 * Saves and loads the state of a machine: QEMU's migration stream. A template's has the devices only,
 * since the memory is in a file that all share (capability `x-ignore-shared`); any other has the memory, too.
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
/** How long it may take when the memory is in it, which may be gigabytes on a slow disk. In ms. */
const MEMORY_LIMIT_MS = 600_000;
/** Nobody waits for the link but us, in bytes a second. QEMU's default is 128 MiB. */
const BANDWIDTH = 2 ** 40;
/** The descriptor that `startProcess` hands down. */
const STATE_FD = 3;

/** What is in the stream beside the devices. */
export type StateContent = "devices" | "devices and memory";

function capabilities(content: StateContent) {
  return {
    capabilities: [
      { capability: "x-ignore-shared", state: content === "devices" },
      { capability: "events", state: true },
    ],
  };
}

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
  content: StateContent = "devices",
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
    const done = migrated(qmp, content);
    done.catch(() => undefined);
    await qmp.execute("migrate-set-capabilities", capabilities(content));
    await qmp.execute("migrate-set-parameters", { "max-bandwidth": BANDWIDTH });
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
export async function loadState(
  qmp: QmpClient,
  content: StateContent = "devices",
): Promise<void> {
  const done = migrated(qmp, content);
  await Promise.all([
    qmp.execute("migrate-set-capabilities", capabilities(content)),
    // It may be answered only when all of it was read.
    qmp.execute(
      "migrate-incoming",
      { uri: `fd:${STATE_FD}` },
      limitOf(content),
    ),
    done,
  ]);
}

function migrated(qmp: QmpClient, content: StateContent): Promise<void> {
  const limit = limitOf(content);
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
      () => settle(`nothing within ${limit / 1000} s`),
      limit,
    );
    void qmp.closed.then(() => settle("QEMU ended"));
  });
}

function limitOf(content: StateContent): number {
  return content === "devices" ? LIMIT_MS : MEMORY_LIMIT_MS;
}
