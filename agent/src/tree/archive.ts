/** Makes a tar archive of a file or a tree, as the Engine makes it (moby/go-archive). */
import {
  AT_FDCWD,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_RDONLY,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFREG,
} from "../constants.js";
import { failureOf, step } from "../failure.js";
import { StatField, isSysError, type Bytes } from "../sys.js";
import { baseName, toText } from "./names.js";
import { Status } from "./status.js";
import { TarType, blankEntry } from "./tar-format.js";
import type { TarWriter } from "./tar-writer.js";

const NONE: Bytes[] = [];
const FILE_FLAGS = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;
const FOLDER_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;

/** A folder that is being gone through. */
interface Frame {
  fd: number;
  names: Bytes[];
  next: number;
  /** Name in the archive, with a slash at the end unless it is "". */
  prefix: Bytes;
}

/** Files in an archive, so that further names of one become hard links. */
export class Archive {
  private readonly names = new Map<string, Bytes>();
  private readonly status = new Status();
  /** The entry that is being made. */
  private readonly entry = blankEntry();

  constructor(private readonly writer: TarWriter) {}

  /**
   * A path of this process's root, as `docker cp` gets it.
   * @param path see `enginePath`
   */
  path(path: Bytes): void {
    const base = baseName(path);
    const { status } = this;
    status.read(AT_FDCWD, path);
    if (!status.isFolder) {
      this.add(AT_FDCWD, path, base);
      return;
    }
    const fd = sys.openAt(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    status.readOpen(fd);
    this.add(fd, ".", base === "/" ? "/" : `${base}/`);
    this.tree(fd, base === "/" ? "/" : `${base}/`);
  }

  /** Everything below the root, with names relative to it. */
  root(): void {
    this.tree(sys.openAt(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0), "");
  }

  /** One file or folder without what is in it. @returns whether it is a folder */
  addChanged(folder: number, name: Bytes, path: Bytes): boolean {
    const { isFolder } = this.status.read(folder, name);
    this.add(folder, name, isFolder ? `${path}/` : path);
    return isFolder;
  }

  /** Everything below an open folder, which is closed in the end. */
  tree(fd: number, prefix: Bytes): void {
    const frames: Frame[] = [{ fd, names: sys.namesIn(fd), next: 0, prefix }];
    for (let frame; (frame = frames[frames.length - 1]);) {
      const name = frame.names[frame.next++];
      if (name === undefined) {
        sys.close(frame.fd);
        frames.pop();
        continue;
      }
      try {
        const child = this.member(frame, name);
        if (child) frames.push(child);
      } catch (error) {
        // What is removed while we read is left out.
        if (!isSysError(error) || error.errno !== "ENOENT") throw error;
      }
    }
  }

  /** A name in a folder. @returns itself, if it is a folder */
  private member(frame: Frame, name: Bytes): Frame | undefined {
    const { fd: folder, prefix: above } = frame;
    const { isFolder } = this.status.read(folder, name);
    if (!isFolder) {
      this.add(folder, name, above + name);
      return undefined;
    }
    const path = `${above}${name}/`;
    this.add(folder, name, path);
    const child = step(`open ${toText(path)}`, () =>
      sys.openAt(folder, name, FOLDER_FLAGS, 0),
    );
    return { fd: child, names: sys.namesIn(child), next: 0, prefix: path };
  }

  /** One file, called `path` in the archive, whose status was just read. Sockets are left out. */
  private add(folder: number, name: Bytes, path: Bytes): void {
    const { status, entry } = this;
    const type = TYPES.get(status.format);
    if (type === undefined) return;
    const { fields } = status;
    entry.name = path;
    entry.type = type;
    entry.mode = (fields[StatField.Mode] as number) & 0o7777;
    entry.uid = fields[StatField.Uid] as number;
    entry.gid = fields[StatField.Gid] as number;
    entry.size = 0;
    entry.seconds = fields[StatField.Seconds] as number;
    entry.nanoseconds = fields[StatField.Nanoseconds] as number;
    entry.linkname = "";
    entry.major = entry.minor = 0;
    entry.xattrs = NONE;
    if (type !== TarType.Directory && status.get(StatField.Links) > 1) {
      const inode = `${status.get(StatField.Device)}:${status.get(StatField.Inode)}`;
      const first = this.names.get(inode);
      if (first !== undefined) {
        this.writer.entry({ ...entry, type: TarType.Link, linkname: first });
        return;
      }
      this.names.set(inode, path);
    }
    if (type === TarType.CharacterDevice || type === TarType.BlockDevice) {
      entry.major = status.get(StatField.Major);
      entry.minor = status.get(StatField.Minor);
    }
    if (type === TarType.File) {
      this.addFile(folder, name);
      return;
    }
    if (type === TarType.Symlink) entry.linkname = sys.readlinkAt(folder, name);
    entry.xattrs = kept(sys.xattrsAt(folder, name));
    this.writer.entry(entry);
  }

  private addFile(folder: number, name: Bytes): void {
    const { status, entry } = this;
    // Opened before its header is written, and looked at again: it may be something else by now.
    const fd = openFile(folder, name, entry.name);
    try {
      if (status.readOpen(fd).format !== S_IFREG) return;
      entry.xattrs = kept(sys.xattrsOf(fd));
      entry.size = status.get(StatField.Size);
      this.writer.entry(entry);
      this.writer.content(fd, entry.size);
    } finally {
      sys.close(fd);
    }
  }
}

const TYPES = new Map<number, TarType>([
  [S_IFREG, TarType.File],
  [S_IFDIR, TarType.Directory],
  [S_IFLNK, TarType.Symlink],
  [S_IFCHR, TarType.CharacterDevice],
  [S_IFBLK, TarType.BlockDevice],
  [S_IFIFO, TarType.Fifo],
]);

/** @param path for words about a failure */
function openFile(folder: number, name: Bytes, path: Bytes): number {
  try {
    return sys.openAt(folder, name, FILE_FLAGS, 0);
  } catch (error) {
    throw failureOf(`open ${toText(path)}`, error);
  }
}

/** Extended attributes, without those that belong to the file systems below the container's. */
function kept(all: Bytes[] | null): Bytes[] {
  if (all === null) return NONE;
  const kept: Bytes[] = [];
  for (let i = 0; i + 1 < all.length; i += 2) {
    const attribute = all[i] as Bytes;
    // A pax record ends its name at the first "=".
    if (attribute.startsWith("trusted.") || attribute.includes("=")) continue;
    kept.push(attribute, all[i + 1] as Bytes);
  }
  return kept;
}
