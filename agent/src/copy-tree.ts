/** Copies of whole folders, as the image's content gets into an empty volume. */
import {
  AT_FDCWD,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_RDONLY,
  O_WRONLY,
  S_IFDIR,
  S_IFLNK,
  S_IFREG,
} from "./constants.js";
import { StatField, unless, type Bytes } from "./sys.js";
import { Status } from "./tree/status.js";

const CHUNK = 256 * 1024;

/**
 * Makes the content of the folder `to` that of the folder `from`, and its owner, mode, time of change and
 * attributes that folder's. Hard links inside of it stay such. Nobody else may change either meanwhile.
 */
export function copyTree(from: Bytes, to: Bytes): void {
  new TreeCopy().content(from, to, new Status().readTarget(from));
}

class TreeCopy {
  private readonly buffer = sys.allocate(CHUNK);
  /** Where the files went that have several names. */
  private readonly linked = new Map<string, Bytes>();

  content(from: Bytes, to: Bytes, status: Status): void {
    for (const name of namesIn(from))
      this.entry(`${from}/${name}`, `${to}/${name}`);
    finish(from, to, status);
  }

  private entry(from: Bytes, to: Bytes): void {
    const status = new Status().read(AT_FDCWD, from);
    if (status.isFolder) {
      sys.mkdirAt(AT_FDCWD, to, 0o700);
      this.content(from, to, status);
      return;
    }
    if (status.get(StatField.Links) > 1) {
      const key = `${status.get(StatField.Device)}:${status.get(StatField.Inode)}`;
      const first = this.linked.get(key);
      if (first !== undefined) {
        sys.linkAt(AT_FDCWD, first, AT_FDCWD, to);
        return;
      }
      this.linked.set(key, to);
    }
    if (status.format === S_IFREG) this.data(from, to);
    else if (status.format === S_IFLNK)
      sys.symlinkAt(sys.readlinkAt(AT_FDCWD, from), AT_FDCWD, to);
    else
      sys.mknodAt(
        AT_FDCWD,
        to,
        status.get(StatField.Mode),
        status.get(StatField.Major),
        status.get(StatField.Minor),
      );
    finish(from, to, status);
  }

  private data(from: Bytes, to: Bytes): void {
    const { buffer } = this;
    const source = sys.openAt(AT_FDCWD, from, O_RDONLY | O_NOFOLLOW, 0);
    try {
      const flags = O_WRONLY | O_CREAT | O_EXCL;
      const target = sys.openAt(AT_FDCWD, to, flags, 0o600);
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
}

function namesIn(folder: Bytes): Bytes[] {
  const fd = sys.openAt(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0);
  try {
    return sys.namesIn(fd);
  } finally {
    sys.close(fd);
  }
}

/** The mode after the owner, whose change takes set-ID bits away; the time last. */
function finish(from: Bytes, to: Bytes, status: Status): void {
  const { format } = status;
  const uid = status.get(StatField.Uid);
  sys.chownAt(AT_FDCWD, to, uid, status.get(StatField.Gid));
  if (format !== S_IFLNK)
    sys.chmodAt(AT_FDCWD, to, status.get(StatField.Mode) & 0o7777);
  if (format === S_IFREG || format === S_IFDIR) copyAttributes(from, to);
  const seconds = status.get(StatField.Seconds);
  sys.timesAt(AT_FDCWD, to, seconds, status.get(StatField.Nanoseconds));
}

/** Those that the target's file system can have. */
function copyAttributes(from: Bytes, to: Bytes): void {
  const pairs = sys.xattrsAt(AT_FDCWD, from) ?? [];
  for (let i = 0; i + 1 < pairs.length; i += 2)
    unless(["EOPNOTSUPP"], () =>
      sys.setXattrAt(AT_FDCWD, to, pairs[i] as Bytes, pairs[i + 1] as Bytes),
    );
}
