/** The container's passwd and group files, read by a process whose root is the container's. */
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  O_NONBLOCK,
  O_RDONLY,
  S_IFMT,
  S_IFREG,
} from "./constants.js";
import { readAll } from "./files.js";
import { unless } from "./sys.js";
import { parseUserFiles, type UserFiles } from "./users.js";

/** A passwd or group file beyond this is cut. */
const MAX_USER_FILE = 8 * 1024 * 1024;

export function readUserFiles(): UserFiles {
  return parseUserFiles(
    readUserFile("/etc/passwd"),
    readUserFile("/etc/group"),
  );
}

/** A file of the container, which may be anything: only a regular one is read. */
function readUserFile(path: string): string {
  const fd = unless(["ENOENT", "ENOTDIR", "ELOOP", "EACCES", "ENXIO"], () =>
    sys.open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK, 0),
  );
  if (fd === undefined) return "";
  const isFile = (sys.stat(fd, "", AT_EMPTY_PATH).mode & S_IFMT) === S_IFREG;
  const text = isFile ? readAll(fd, MAX_USER_FILE) : "";
  sys.close(fd);
  return text;
}
