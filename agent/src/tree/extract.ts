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
import { Failure, failureOf, step } from "../failure.js";
import { isSysError, StatField, unless, type Bytes } from "../sys.js";
import { toText } from "./names.js";
import { removeAll } from "./remove.js";
import { Status } from "./status.js";
import { TarType, type TarEntry } from "./tar-format.js";
import type { TarReader } from "./tar-reader.js";

const MISSING_FOLDER_MODE = 0o755;
const FILE_FLAGS = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;

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
  new Extraction(reader, target, options).run();
}

class Extraction {
  private readonly status = new Status();
  private readonly place: Place;
  private readonly folders: TarEntry[] = [];

  constructor(
    private readonly reader: TarReader,
    private readonly target: number,
    private readonly options: ExtractOptions,
  ) {
    this.place = new Place(target);
  }

  run(): void {
    const { reader, target, folders } = this;
    for (let entry; (entry = reader.next());) {
      // In most cases it is a file beside the last one.
      const isFile = entry.type === TarType.File;
      const beside = isFile && this.place.isBeside(entry.name);
      const path = beside ? entry.name : insideName(entry.name);
      if (path === ".") continue;
      try {
        if (isFile) this.makeFile(entry, path, beside);
        else this.makeOther({ ...entry, name: path });
      } catch (error) {
        throw failureOf(`extract ${toText(entry.name)}`, error);
      }
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

  /** @param beside its place is found already */
  private makeFile(entry: TarEntry, path: Bytes, beside: boolean): void {
    const { target, place, reader } = this;
    const owner = this.options.owner ?? entry;
    if (!beside) place.find(path);
    // What is to be root's is so from the beginning, and then seldom needs to be changed.
    const isRoots = owner.uid === 0 && owner.gid === 0;
    const mode = isRoots ? entry.mode & 0o777 : 0o600;
    // In most cases nothing is there, and the folder is.
    let fd = sys.tryOpenAt(place.folder, place.name, FILE_FLAGS, mode);
    if (fd < 0) {
      this.makePlace(path, false);
      fd = sys.openAt(target, path, FILE_FLAGS, mode);
    }
    try {
      reader.copyContent(fd);
      const { seconds, nanoseconds } = entry;
      if (entry.xattrs.length > 0) {
        sys.fchown(fd, owner.uid, owner.gid);
        setAttributes(target, path, entry.xattrs);
      }
      const { uid, gid } = owner;
      sys.setStatus(fd, uid, gid, entry.mode, seconds, nanoseconds);
    } finally {
      sys.close(fd);
    }
  }

  private makeOther(entry: TarEntry): void {
    const { target, options } = this;
    const { type, name } = entry;
    const isFolder = type === TarType.Directory;
    const there = this.makePlace(name, isFolder);
    const owner = options.owner ?? entry;
    switch (type) {
      case TarType.File:
        throw new TypeError("files are made by makeFile");
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
    setAttributes(target, name, entry.xattrs);
    if (type !== TarType.Symlink) sys.chmodAt(target, name, entry.mode);
    if (!isFolder) sys.timesAt(target, name, entry.seconds, entry.nanoseconds);
  }

  /** Makes room for an entry, and the folders it is in. @returns whether its folder is there already */
  private makePlace(name: Bytes, isFolder: boolean): boolean {
    const { target, status } = this;
    if (!status.readIfThere(target, name)) {
      makeParents(target, name);
      return false;
    }
    if (isFolder && status.isFolder) return true;
    if (this.options.keepKinds && status.isFolder !== isFolder) {
      const path = JSON.stringify(toText(`/${name}`));
      throw new Failure(
        "invalid",
        status.isFolder
          ? `cannot overwrite directory ${path} with non-directory ${path}`
          : `cannot overwrite non-directory ${path} with directory ${path}`,
      );
    }
    // It may be on the way to the folder.
    this.place.forget();
    removeAll(target, name);
    return false;
  }
}

/** Where a file is to be made: its folder is kept open, since the next one is in it most of the time. */
class Place {
  /** An open folder, and the name in it. */
  folder: number;
  name: Bytes = "";
  /** Path of that folder, with a slash, once a file was in it. */
  private above: Bytes | undefined;
  private fd = -1;

  constructor(private readonly target: number) {
    this.folder = target;
  }

  /** Whether a path, clean or not, is one of the last one's folder: its place is found then. */
  isBeside(path: Bytes): boolean {
    const { above } = this;
    if (above === undefined || !path.startsWith(above)) return false;
    const name = path.slice(above.length);
    if (name.includes("/")) return false;
    if (name === "" || name === "." || name === "..") return false;
    if (this.fd < 0) {
      this.fd = sys.tryOpenAt(this.target, above, O_PATH | O_DIRECTORY, 0);
      if (this.fd < 0) return false;
    }
    this.folder = this.fd;
    this.name = name;
    return true;
  }

  /** Finds the place for a clean path. */
  find(path: Bytes): void {
    this.forget();
    this.folder = this.target;
    this.name = path;
    const slash = path.lastIndexOf("/");
    if (slash >= 0) this.above = path.slice(0, slash + 1);
  }

  /** What was found may not be where it was. */
  forget(): void {
    if (this.fd >= 0) sys.close(this.fd);
    this.fd = -1;
    this.above = undefined;
  }
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

function setAttributes(target: number, name: Bytes, xattrs: Bytes[]): void {
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
  if (isClean(name)) return name;
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

/** Has nothing but names in it: no "", "." or "..". Some clean names count as others. */
function isClean(name: Bytes): boolean {
  const last = name.charAt(name.length - 1);
  return (
    last !== "" &&
    last !== "/" &&
    last !== "." &&
    name.charAt(0) !== "/" &&
    !name.includes("//") &&
    !name.includes("./")
  );
}
