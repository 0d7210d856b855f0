/** Copies of whole folders, as the image's content gets into an empty volume. */
import {
  AT_FDCWD,
  AT_SYMLINK_NOFOLLOW,
  O_CREAT,
  O_EXCL,
  O_NOFOLLOW,
  O_RDONLY,
  O_WRONLY,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from "./constants.js";
import type { Stat } from "./sys.js";

const CHUNK = 256 * 1024;

/**
 * Makes the content of the folder `to` that of the folder `from`, and its owner, mode, times and
 * attributes that folder's. Hard links inside of it stay such. Nobody else may change either meanwhile.
 */
export function copyTree(from: string, to: string): void {
  new TreeCopy().content(from, to);
}

class TreeCopy {
  private readonly buffer = sys.allocate(CHUNK);
  /** Where the files went that have several names. */
  private readonly linked = new Map<string, string>();

  content(from: string, to: string): void {
    for (const name of sys.list(from))
      this.entry(`${from}/${name}`, `${to}/${name}`);
    this.finish(from, to, sys.stat(AT_FDCWD, from, 0));
  }

  private entry(from: string, to: string): void {
    const file = sys.stat(AT_FDCWD, from, AT_SYMLINK_NOFOLLOW);
    const type = file.mode & S_IFMT;
    if (type === S_IFDIR) {
      sys.mkdir(AT_FDCWD, to, 0o700);
      this.content(from, to);
      return;
    }
    if (file.links > 1) {
      const key = `${file.device}:${file.inode}`;
      const first = this.linked.get(key);
      if (first !== undefined) {
        sys.link(first, to);
        return;
      }
      this.linked.set(key, to);
    }
    if (type === S_IFREG) this.data(from, to);
    else if (type === S_IFLNK)
      sys.symlink(sys.readlink(AT_FDCWD, from), AT_FDCWD, to);
    else sys.mknod(AT_FDCWD, to, file.mode, file.major, file.minor);
    this.finish(from, to, file);
  }

  private data(from: string, to: string): void {
    const { buffer } = this;
    const source = sys.open(AT_FDCWD, from, O_RDONLY | O_NOFOLLOW, 0);
    try {
      const flags = O_WRONLY | O_CREAT | O_EXCL;
      const target = sys.open(AT_FDCWD, to, flags, 0o600);
      try {
        for (;;) {
          const count = sys.read(source, buffer, 0, CHUNK);
          if (count <= 0) break;
          for (let at = 0; at < count;)
            at += sys.write(target, buffer, at, count - at);
        }
      } finally {
        sys.close(target);
      }
    } finally {
      sys.close(source);
    }
  }

  /** The mode after the owner, whose change takes set-ID bits away; the times last. */
  private finish(from: string, to: string, file: Stat): void {
    sys.chown(to, file.uid, file.gid);
    const type = file.mode & S_IFMT;
    if (type !== S_IFLNK) sys.chmod(to, file.mode & 0o7777);
    if (type === S_IFREG || type === S_IFDIR) sys.copyAttributes(from, to);
    sys.setTimes(
      to,
      file.accessed,
      file.accessedNs,
      file.modified,
      file.modifiedNs,
    );
  }
}
