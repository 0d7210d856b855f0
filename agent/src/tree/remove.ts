/** rm -r: links are removed, not followed. */
import {
  AT_REMOVEDIR,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
} from "../constants.js";
import { isSysError, type Bytes } from "../sys.js";

interface Frame {
  fd: number;
  name: Bytes;
  names: Bytes[];
}

export function removeAll(folder: number, name: Bytes): void {
  if (unlinked(folder, name)) return;
  const frames: Frame[] = [];
  const enter = (parent: number, child: Bytes) => {
    const fd = sys.openAt(
      parent,
      child,
      O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
      0,
    );
    frames.push({ fd, name: child, names: sys.namesIn(fd) });
  };
  try {
    enter(folder, name);
    for (let frame; (frame = frames[frames.length - 1]);) {
      const child = frame.names.pop();
      if (child !== undefined) {
        if (!unlinked(frame.fd, child)) enter(frame.fd, child);
        continue;
      }
      sys.close(frame.fd);
      frames.pop();
      const parent = frames[frames.length - 1]?.fd ?? folder;
      sys.unlinkAt(parent, frame.name, AT_REMOVEDIR);
    }
  } finally {
    for (const { fd } of frames) sys.close(fd);
  }
}

/** False for a folder. */
function unlinked(folder: number, name: Bytes): boolean {
  try {
    sys.unlinkAt(folder, name, 0);
  } catch (error) {
    if (!isSysError(error)) throw error;
    if (error.errno === "ENOENT") return true;
    if (error.errno === "EISDIR") return false;
    throw error;
  }
  return true;
}
