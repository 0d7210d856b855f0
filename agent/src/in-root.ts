/**
 * Paths inside the container's root, followed one component at a time: symbolic links of an image are
 * resolved as a process in the container would see them, and never lead out of it.
 */
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from "./constants.js";
import { Failure } from "./failure.js";
import { unless } from "./sys.js";

/** Where the container's root is, in the agent's view. */
export const ROOT = "/run/root";
const MAX_LINKS = 40;

/** What to make where the path ends, if nothing is there. */
export type Missing = "directory" | "file" | "error";

/**
 * Opens (O_PATH) what `path` names inside of `root`.
 * @param missing folders on the way are made too, unless "error"
 * @throws the errno of the step that failed; {@link Failure} for too many links
 */
export function openInRoot(
  root: string,
  path: string,
  missing: Missing,
): number {
  const todo = components(path);
  const folders = [sys.open(AT_FDCWD, root, O_PATH | O_DIRECTORY, 0)];
  let links = 0;
  try {
    for (;;) {
      const here = folders[folders.length - 1] as number;
      const name = todo.shift();
      if (name === undefined) {
        folders.pop();
        return here;
      }
      if (name === "..") {
        if (folders.length > 1) sys.close(folders.pop() as number);
        continue;
      }
      const next = openOrMake(
        here,
        name,
        todo.length > 0 && missing !== "error" ? "directory" : missing,
      );
      const type = sys.stat(next, "", AT_EMPTY_PATH).mode & S_IFMT;
      if (type === S_IFLNK) {
        const target = sys.readlink(next, "");
        sys.close(next);
        if (++links > MAX_LINKS)
          throw new Failure(
            "system",
            `${path}: too many levels of symbolic links`,
            "ELOOP",
          );
        if (target.startsWith("/"))
          while (folders.length > 1) sys.close(folders.pop() as number);
        todo.unshift(...components(target));
      } else if (todo.length > 0 && type !== S_IFDIR) {
        sys.close(next);
        throw new Failure("system", `${path}: not a directory`, "ENOTDIR");
      } else {
        folders.push(next);
      }
    }
  } finally {
    for (const fd of folders) sys.close(fd);
  }
}

/** Runs `use` with a path by which system calls reach what `path` names inside of `root`. */
export function inRoot<T>(
  root: string,
  path: string,
  missing: Missing,
  use: (path: string) => T,
): T {
  const fd = openInRoot(root, path, missing);
  try {
    return use(`/proc/self/fd/${fd}`);
  } finally {
    sys.close(fd);
  }
}

/** Opens a regular file inside of `root` for reading; undefined where there is none. */
export function openFileInRoot(root: string, path: string): number | undefined {
  return unless(["ENOENT", "ENOTDIR"], () =>
    inRoot(root, path, "error", (target) => {
      const isFile = (sys.stat(AT_FDCWD, target, 0).mode & S_IFMT) === S_IFREG;
      return isFile ? sys.open(AT_FDCWD, target, O_RDONLY, 0) : undefined;
    }),
  );
}

function openOrMake(folder: number, name: string, missing: Missing): number {
  const flags = O_PATH | O_NOFOLLOW;
  if (missing === "error") return sys.open(folder, name, flags, 0);
  const found = unless(["ENOENT"], () => sys.open(folder, name, flags, 0));
  if (found !== undefined) return found;
  if (missing === "directory") sys.mkdir(folder, name, 0o755);
  else sys.mknod(folder, name, S_IFREG | 0o644, 0, 0);
  return sys.open(folder, name, flags, 0);
}

function components(path: string): string[] {
  return path.split("/").filter((name) => name !== "" && name !== ".");
}
