/**
 * machine-id(5): an image that is for many machines has an empty /etc/machine-id, or one that says
 * "uninitialized", and each machine gets its own. One that has none, or an ID, is left as it is.
 */
import type { FileSetup } from "../../protocol/index.js";
import { readAll } from "./files.js";
import { openFileInRoot, ROOT } from "./in-root.js";

const PATH = "/etc/machine-id";
const UNINITIALIZED = ["", "uninitialized\n", "uninitialized"];
/** An ID and a newline are 33 bytes. */
const LIMIT = 64;

/** @param machineId 32 hex digits */
export function machineIdFile(machineId: string): FileSetup {
  return { path: PATH, content: `${machineId}\n`, mode: 0o444 };
}

/** Whether the image, in the container's root, leaves it to the machine. */
export function hasNoMachineId(): boolean {
  const fd = openFileInRoot(ROOT, PATH);
  if (fd === undefined) return false;
  try {
    return UNINITIALIZED.includes(readAll(fd, LIMIT));
  } finally {
    sys.close(fd);
  }
}
