/** The report of a container's last start, kept beside its record. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { writeState } from "../state-file.js";
import type { StartReport } from "./start-trace.js";

const FILE = "start-trace.json";
/** More than this is not a report of ours. */
const MAX_BYTES = 64 * 1024;

/** Writes without waiting for the disk: a trace that a crash loses is no loss. */
export async function writeStartReport(
  directory: string,
  report: StartReport,
): Promise<void> {
  const text = JSON.stringify(report) + "\n";
  if (text.length > MAX_BYTES) return;
  await writeState(path.join(directory, FILE), text, { durable: false });
}

/** @returns undefined where there is none, or none that can be read */
export async function readStartReport(
  directory: string,
): Promise<StartReport | undefined> {
  try {
    const text = await readFile(path.join(directory, FILE), "utf8");
    return JSON.parse(text) as StartReport;
  } catch {
    return undefined;
  }
}
