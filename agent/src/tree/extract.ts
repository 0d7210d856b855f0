/**
 * Extracts a tar archive into a folder of the container's root, as the Engine does (moby/go-archive,
 * Untar). The root is this process's own, so that links lead to nowhere else; names and hard links must
 * stay in the folder by their wording, too.
 */
import {
  AT_FDCWD,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_WRONLY,
  S_IFBLK,
  S_IFCHR,
  S_IFIFO,
} from "../constants.js";
import { Failure, step } from "../failure.js";
import { isSysError, StatField, unless, type Bytes } from "../sys.js";
import { toText } from "./names.js";
import { removeAll } from "./remove.js";
import { Status } from "./status.js";
import { TarType, type TarEntry } from "./tar-format.js";
import type { TarReader } from "./tar-reader.js";

const MISSING_FOLDER_MODE = 0o755;

export interface ExtractOptions {
  /** A folder takes no file's place, and a file no folder's. */
  keepKinds: boolean;
  /** Whose everything becomes; absent for the archive's own words. */
  owner?: { uid: number; gid: number };
}

/**
 * Opens the folder to extract to.
 * @param path see `enginePath`; links are followed, also the last one
 * @param readonlyRoot the container's root may not be written, its mounts may
 * @throws {Failure} with an errno: ENOENT, ENOTDIR, EROFS
 */
export function openTarget(path: Bytes, readonlyRoot: boolean): number {
  const fd = step(`lstat ${toText(path)}`, () =>
    sys.openAt(AT_FDCWD, path, O_PATH, 0),
  );
  const status = new Status();
  const root = new Status().read(AT_FDCWD, "/");
  if (!status.readOpen(fd).isFolder)
    throw new Failure(
      "invalid",
      "extraction point is not a directory",
      "ENOTDIR",
    );
  if (
    readonlyRoot &&
    status.get(StatField.Device) === root.get(StatField.Device)
  )
    throw new Failure(
      "invalid",
      "container rootfs is marked read-only",
      "EROFS",
    );
  return sys.openAt(fd, ".", O_RDONLY | O_DIRECTORY, 0);
}

/** @throws {Failure} {@link TarError}: what was extracted until then stays */
export function extract(
  reader: TarReader,
  target: number,
  options: ExtractOptions,
): void {
  const folders: TarEntry[] = [];
  for (let entry; (entry = reader.next());) {
    const path = insideName(entry.name);
    if (path === ".") continue;
    const name = entry.name;
    step(`extract ${toText(name)}`, () => {
      make(reader, target, { ...entry, name: path }, options);
    });
    if (entry.type === TarType.Directory)
      folders.push({ ...entry, name: path });
  }
  // Last, since what is put into a folder changes its time.
  for (const folder of folders)
    unless(["ENOENT", "ENOTDIR"], () =>
      sys.timesAt(target, folder.name, folder.seconds, folder.nanoseconds),
    );
  reader.drain();
}

function make(
  reader: TarReader,
  target: number,
  entry: TarEntry,
  options: ExtractOptions,
): void {
  const { name, type } = entry;
  const status = new Status();
  const isFolder = type === TarType.Directory;
  const there = makePlace(target, name, status, isFolder, options);
  const owner = options.owner ?? entry;
  switch (type) {
    case TarType.File: {
      const flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
      const fd = sys.openAt(target, name, flags, 0o600);
      try {
        reader.copyContent(fd);
        sys.fchown(fd, owner.uid, owner.gid);
        setAttributes(target, entry);
        sys.fchmod(fd, entry.mode);
      } finally {
        sys.close(fd);
      }
      sys.timesAt(target, name, entry.seconds, entry.nanoseconds);
      return;
    }
    case TarType.Link:
      sys.linkAt(target, insideName(entry.linkname, name), target, name);
      return;
    case TarType.Directory:
      if (!there) sys.mkdirAt(target, name, 0o755);
      break;
    case TarType.Symlink:
      sys.symlinkAt(entry.linkname, target, name);
      break;
    case TarType.CharacterDevice:
      sys.mknodAt(target, name, S_IFCHR | 0o600, entry.major, entry.minor);
      break;
    case TarType.BlockDevice:
      sys.mknodAt(target, name, S_IFBLK | 0o600, entry.major, entry.minor);
      break;
    case TarType.Fifo:
      sys.mknodAt(target, name, S_IFIFO | 0o600, 0, 0);
      break;
  }
  sys.chownAt(target, name, owner.uid, owner.gid);
  setAttributes(target, entry);
  if (type !== TarType.Symlink) sys.chmodAt(target, name, entry.mode);
  if (!isFolder) sys.timesAt(target, name, entry.seconds, entry.nanoseconds);
}

/** Makes room for an entry, and the folders it is in. @returns whether its folder is there already */
function makePlace(
  target: number,
  name: Bytes,
  status: Status,
  isFolder: boolean,
  options: ExtractOptions,
): boolean {
  if (!status.readIfThere(target, name)) {
    makeParents(target, name);
    return false;
  }
  if (isFolder && status.isFolder) return true;
  if (options.keepKinds && status.isFolder !== isFolder) {
    const path = JSON.stringify(toText(`/${name}`));
    throw new Failure(
      "invalid",
      status.isFolder
        ? `cannot overwrite directory ${path} with non-directory ${path}`
        : `cannot overwrite non-directory ${path} with directory ${path}`,
    );
  }
  removeAll(target, name);
  return false;
}

function makeParents(target: number, name: Bytes): void {
  const slash = name.lastIndexOf("/");
  if (slash < 0) return;
  const parent = name.slice(0, slash);
  try {
    sys.mkdirAt(target, parent, MISSING_FOLDER_MODE);
    sys.chmodAt(target, parent, MISSING_FOLDER_MODE);
  } catch (error) {
    if (!isSysError(error)) throw error;
    if (error.errno === "EEXIST") return;
    if (error.errno !== "ENOENT") throw error;
    makeParents(target, parent);
    sys.mkdirAt(target, parent, MISSING_FOLDER_MODE);
    sys.chmodAt(target, parent, MISSING_FOLDER_MODE);
  }
}

function setAttributes(target: number, entry: TarEntry): void {
  const { xattrs, name } = entry;
  for (let i = 0; i + 1 < xattrs.length; i += 2) {
    const attribute = xattrs[i] as Bytes;
    if (attribute.startsWith("trusted.")) continue;
    // A file system or kind of file without them is no reason to fail.
    unless(["EOPNOTSUPP", "EPERM"], () =>
      sys.setXattrAt(target, name, attribute, xattrs[i + 1] as Bytes),
    );
  }
}

/**
 * A name relative to the folder, "." for itself.
 * @throws {Failure} it leads out of it
 */
function insideName(name: Bytes, link?: Bytes): Bytes {
  const parts: Bytes[] = [];
  const absolute = name.startsWith("/");
  for (const part of name.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.length > 0) parts.pop();
    else if (!absolute)
      throw new Failure(
        "invalid",
        link === undefined
          ? `${JSON.stringify(toText(name))} is outside of the destination`
          : `invalid hardlink ${JSON.stringify(toText(link))} -> ${JSON.stringify(toText(name))}`,
      );
  }
  return parts.length === 0 ? "." : parts.join("/");
}
