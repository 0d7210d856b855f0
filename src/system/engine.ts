/** What this engine is: its version, its identity and the settings it shows to clients. */
import type { Logger } from "pino";
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { setAside, writeState } from "../state-file.js";

export interface Engine {
  /** Stays the same for a data root. */
  id: string;
  version: string;
  /** Short commit, or "unknown". */
  commit: string;
  /** RFC 3339. */
  builtAt: string;
  dataRoot: string;
  labels: string[];
  debug: boolean;
  insecureRegistries: string[];
  registryMirrors: string[];
  /** Defaults of a container's machine. */
  machine: {
    memoryBytes: number;
    vcpus: number;
    diskBytes: number;
    /** Names of the guest kernels a container may ask for. */
    kernels?: readonly string[];
  };
}

/** The ID of the engine that owns a data root, made on the first start. */
export async function engineId(dataRoot: string, log: Logger): Promise<string> {
  const file = path.join(dataRoot, "engine-id");
  const known = await readFile(file, "utf8").catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return "";
      throw error;
    },
  );
  if (/^[0-9a-f-]{36}\n$/.test(known)) return known.trim();
  if (known !== "") {
    await setAside(file, new Error("not an engine's ID"), log);
  }
  const id = randomUUID();
  await writeState(file, `${id}\n`);
  return id;
}
