/**
 * Saves and loads the state of a machine: QEMU's migration stream. A template's has the devices only,
 * since the memory is in a file that all share (capability `x-ignore-shared`); any other has the memory, too.
 */
import { createHash } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { Unavailable } from "../../errors.js";
import { Descriptor } from "./descriptors.js";
import type { QmpClient } from "./qmp.js";

/** How long QEMU may take for some 70 KB; a busy host is slow. In ms. */
const LIMIT_MS = 20_000;
/** How long it may take when the memory is in it, which may be gigabytes on a slow disk. In ms. */
const MEMORY_LIMIT_MS = 600_000;
/** Nobody waits for the link but us, in bytes a second. QEMU's default is 128 MiB. */
const BANDWIDTH = 2 ** 40;
/** Of the file's descriptor in QEMU. */
const STATE_NAME = "state";

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
 * Writes the state of a machine that stands still to a new file.
 * @throws {Unavailable} QEMU could not, or the file could not be written
 */
export async function saveState(
  qmp: QmpClient,
  path: string,
  content: StateContent = "devices",
): Promise<void> {
  const file = await open(path, "wx+", 0o600);
  try {
    const done = migrated(qmp, content);
    // Waited for later.
    done.catch(() => undefined);
    await qmp.executeWith(file.fd, "getfd", { fdname: STATE_NAME });
    await qmp.execute("migrate-set-capabilities", capabilities(content));
    await qmp.execute("migrate-set-parameters", { "max-bandwidth": BANDWIDTH });
    await qmp.execute("migrate", { uri: `fd:${STATE_NAME}` });
    await done;
  } finally {
    await file.close();
  }
}

/** What is remembered of a state's file, to know it again. */
export async function identifyState(
  path: string,
): Promise<{ sha256: string; bytes: number }> {
  const content = await readFile(path);
  const sha256 = createHash("sha256").update(content).digest("hex");
  return { sha256, bytes: content.length };
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
    // A clone is nobody that came from elsewhere: without this QEMU sends packets of its own by each NIC, and has
    // the guest announce itself, five times each.
    qmp.execute("migrate-set-parameters", { "announce-rounds": 0 }),
    // It may be answered only when all of it was read.
    qmp.execute(
      "migrate-incoming",
      { uri: `fd:${Descriptor.state}` },
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
