/** What a file is: `lstat` of one path, and the record that the Engine shows of it. */
import type { PathStat } from "../../../protocol/index.js";
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_SYMLINK_NOFOLLOW,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
} from "../constants.js";
import { Failure, step } from "../failure.js";
import { STAT_FIELDS, StatField, unless, type Bytes } from "../sys.js";
import { baseName, toText } from "./names.js";

/** moby's symlink.FollowSymlinkInScope gives up after so many. */
const MAX_LINKS = 255;

/** A file's status; links are not followed. The numbers are by {@link StatField}. */
export class Status {
  readonly fields = new Float64Array(STAT_FIELDS);

  /** @throws errno */
  read(directory: number, name: Bytes): this {
    sys.statAt(directory, name, AT_SYMLINK_NOFOLLOW, this.fields.buffer);
    return this;
  }

  /** Follows links. */
  readTarget(name: Bytes): this {
    sys.statAt(AT_FDCWD, name, 0, this.fields.buffer);
    return this;
  }

  readOpen(fd: number): this {
    sys.statAt(fd, "", AT_EMPTY_PATH, this.fields.buffer);
    return this;
  }

  /** False where there is no such file. */
  readIfThere(directory: number, name: Bytes): boolean {
    return (
      unless(["ENOENT", "ENOTDIR"], () => this.read(directory, name)) !==
      undefined
    );
  }

  get(field: number): number {
    return this.fields[field] as number;
  }

  get format(): number {
    return this.get(StatField.Mode) & S_IFMT;
  }

  get isFolder(): boolean {
    return this.format === S_IFDIR;
  }
}

/**
 * What the Engine says of a path in the container's root, which is this process's root.
 * @param path see `enginePath`
 * @throws {Failure} with the errno
 */
export function pathStat(path: Bytes): PathStat {
  const status = new Status();
  step(`lstat ${toText(path)}`, () => status.read(AT_FDCWD, path));
  return {
    name: toText(baseName(path)),
    size: status.get(StatField.Size),
    mode: status.get(StatField.Mode),
    seconds: status.get(StatField.Seconds),
    nanoseconds: status.get(StatField.Nanoseconds),
    linkTarget: status.format === S_IFLNK ? toText(followLinks(path)) : "",
  };
}

/** Where a path leads when all links are followed, also where nothing is there. */
export function followLinks(path: Bytes): Bytes {
  const todo = path.split("/");
  let here: Bytes[] = [];
  const status = new Status();
  for (let links = 0; todo.length > 0;) {
    const part = todo.shift() as Bytes;
    if (part === "" || part === ".") continue;
    if (part === "..") {
      here.pop();
      continue;
    }
    const next = `/${[...here, part].join("/")}`;
    if (!status.readIfThere(AT_FDCWD, next) || status.format !== S_IFLNK) {
      here.push(part);
      continue;
    }
    if (++links > MAX_LINKS)
      throw new Failure("system", `too many links in ${toText(path)}`, "ELOOP");
    const target = sys.readlinkAt(AT_FDCWD, next);
    if (target.startsWith("/")) here = [];
    todo.unshift(...target.split("/"));
  }
  return `/${here.join("/")}`;
}
