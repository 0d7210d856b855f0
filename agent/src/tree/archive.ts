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
import { step } from "../failure.js";
import { StatField, unless, type Bytes } from "../sys.js";
import { baseName, toText } from "./names.js";
import { Status } from "./status.js";
import { TarType, type TarEntry } from "./tar-format.js";
import type { TarWriter } from "./tar-writer.js";

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
      const { fd: folder, prefix: above } = frame;
      // What is removed while we read is left out.
      unless(["ENOENT"], () => {
        const isFolder = this.status.read(folder, name).isFolder;
        const path = `${above}${name}${isFolder ? "/" : ""}`;
        this.add(folder, name, path);
        if (!isFolder) return;
        const child = step(`open ${toText(path)}`, () =>
          sys.openAt(folder, name, FOLDER_FLAGS, 0),
        );
        frames.push({
          fd: child,
          names: sys.namesIn(child),
          next: 0,
          prefix: path,
        });
      });
    }
  }

  /** One file, called `path` in the archive; `status` is its own. Sockets are left out. */
  add(folder: number, name: Bytes, path: Bytes): void {
    const { status } = this;
    status.read(folder, name);
    const type = TYPES.get(status.format);
    if (type === undefined) return;
    const entry: TarEntry = {
      name: path,
      type,
      mode: status.get(StatField.Mode) & 0o7777,
      uid: status.get(StatField.Uid),
      gid: status.get(StatField.Gid),
      size: 0,
      seconds: status.get(StatField.Seconds),
      nanoseconds: status.get(StatField.Nanoseconds),
      linkname: "",
      major: 0,
      minor: 0,
      xattrs: [],
    };
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
    if (type === TarType.Symlink) entry.linkname = sys.readlinkAt(folder, name);
    entry.xattrs = attributes(folder, name);
    if (type === TarType.File) this.addFile(folder, name, entry);
    else this.writer.entry(entry);
  }

  private addFile(folder: number, name: Bytes, entry: TarEntry): void {
    // Opened before its header is written, and looked at again: it may be something else by now.
    const fd = step(`open ${toText(entry.name)}`, () =>
      sys.openAt(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0),
    );
    try {
      const { status } = this;
      if (status.readOpen(fd).format !== S_IFREG) return;
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

/** Extended attributes, without those that belong to the file systems below the container's. */
function attributes(folder: number, name: Bytes): Bytes[] {
  const all = sys.xattrsAt(folder, name);
  if (all === null) return [];
  const kept: Bytes[] = [];
  for (let i = 0; i + 1 < all.length; i += 2) {
    const attribute = all[i] as Bytes;
    // A pax record ends its name at the first "=".
    if (attribute.startsWith("trusted.") || attribute.includes("=")) continue;
    kept.push(attribute, all[i + 1] as Bytes);
  }
  return kept;
}
