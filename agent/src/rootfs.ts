/**
 * The container's root: an EROFS image below, a folder of an ext4 disk above, overlayfs over both. A
 * stopped container's disk comes back on its next start, so everything here may be there already.
 *
 * Overlay options are the kernel's defaults: like Docker's, neither `metacopy` nor `redirect_dir`,
 * whose attributes a reader of the upper folder would have to understand. Not `volatile`: fsync must
 * mean what it says to a database in a container.
 */
import {
  FILE_MODE,
  SETUP_DEFAULTS,
  type DiskIndex,
  type FileSetup,
  type MountSetup,
  type RootfsSetup,
  type Setup,
} from "../../protocol/index.js";
import {
  AT_FDCWD,
  MNT_DETACH,
  MS_BIND,
  MS_MOVE,
  MS_NOATIME,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  O_EXCL,
  O_RDONLY,
  O_WRONLY,
} from "./constants.js";
import { Failure, step } from "./failure.js";
import { createFile, makeFolder, readText, writeAll } from "./files.js";
import { inRoot, ROOT } from "./in-root.js";
import { parseMountOptions } from "./mount-options.js";
import { mountShare, unmountShares } from "./shares.js";
import { isSysError, unless } from "./sys.js";

/** The image, without the container's changes. */
export const LOWER = "/run/lower";
const DISK = "/run/disk";
/** The container's changes, as overlayfs keeps them. */
export const UPPER = `${DISK}/upper`;
/** Folders that are made, where the image has none, for what the agent mounts. */
export const MOUNT_POINTS = ["/dev", "/proc", "/sys"];
const FILES = "/run/files";
const SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC;
/** Longer than any file of the engine. */
const FILE_LIMIT = 1024 * 1024;

/** A file of the engine's. */
interface EngineFile {
  /** Where it is. */
  readonly source: string;
  /** What was written into it. */
  content: string;
  /** Open while it is to be filled. */
  fd?: number;
}

/** By their paths in the container. */
const engineFiles = new Map<string, EngineFile>();

/** Makes the folders that are mounted on. */
export function makeMountPoints(): void {
  for (const folder of [ROOT, LOWER, DISK, FILES]) makeFolder(folder, 0o700);
}

export function mountRoot(setup: RootfsSetup): void {
  step("mount the image", () =>
    sys.mount(device(setup.image), LOWER, "erofs", MS_RDONLY, null),
  );
  // The disk comes zeroed: tables need not be written again to be so.
  step("mount the writable disk", () =>
    sys.mount(
      device(setup.writable),
      DISK,
      "ext4",
      MS_NOATIME,
      "noinit_itable",
    ),
  );
  // The upper folder's owner and mode are the root folder's.
  makeFolder(UPPER, 0o755);
  makeFolder(`${DISK}/work`, 0o700);
  step("mount the root", () =>
    sys.mount(
      "overlay",
      ROOT,
      "overlay",
      0,
      `lowerdir=${LOWER},upperdir=${UPPER},workdir=${DISK}/work`,
    ),
  );
}

/** What an empty disk has in use: the folders of the overlay, and ext4's own. */
const EMPTY_DISK = 9 * 4096;

/** Bytes the container has written. */
export function writtenBytes(): number {
  return Math.max(0, sys.bytesUsed(DISK) - EMPTY_DISK);
}

/** Mounts what the user asked for: tmpfs and volumes. */
export function mountExtra(mount: MountSetup): void {
  if (mount.type === "share") {
    mountShare(mount);
    return;
  }
  step(`mount ${mount.target}`, () =>
    inRoot(ROOT, mount.target, "directory", (target) => {
      if (mount.type === "tmpfs") {
        const { flags, data } = parseMountOptions(mount.options);
        sys.mount("tmpfs", target, "tmpfs", flags, data);
      } else if (mount.type === "disk") {
        sys.mount(
          device(mount.disk),
          target,
          "ext4",
          mount.readonly ? MS_RDONLY : 0,
          "noinit_itable",
        );
      }
    }),
  );
}

/**
 * Puts the engine's files over the image's. They are on a tmpfs of the agent and mounted over their
 * places, so that they are no changes of the container's own.
 */
export function mountFiles(files: FileSetup[]): void {
  for (const file of files) {
    const source = `${FILES}/${engineFiles.size}`;
    step(`write ${file.path}`, () => {
      createFile(source, file.content, modeOf(file));
      engineFiles.set(file.path, { source, content: file.content });
      inRoot(ROOT, file.path, "file", (target) =>
        sys.mount(source, target, null, MS_BIND, null),
      );
    });
  }
}

/** The same with files that are filled later. */
export function mountEmptyFiles(paths: readonly string[]): void {
  mountFiles(paths.map((path) => ({ path, content: "" })));
  for (const file of engineFiles.values())
    file.fd = sys.open(AT_FDCWD, file.source, O_WRONLY, 0);
}

function modeOf({ mode }: FileSetup): number {
  return mode === undefined ? FILE_MODE : mode & 0o7777;
}

/**
 * Fills those that are mounted, and mounts the others.
 * @returns whether there were no others
 */
export function fillFiles(files: FileSetup[]): boolean {
  const missing: FileSetup[] = [];
  for (const file of files) {
    const mounted = engineFiles.get(file.path);
    const fd = mounted?.fd;
    if (!mounted || fd === undefined) {
      missing.push(file);
      continue;
    }
    step(`write ${file.path}`, () => {
      if (file.mode !== undefined) sys.fchmod(fd, modeOf(file));
      writeAll(fd, sys.encode(file.content));
    });
    sys.close(fd);
    delete mounted.fd;
    mounted.content = file.content;
  }
  mountFiles(missing);
  return missing.length === 0;
}

/**
 * Writes the engine's files again where they say something else now, in place, since they are mounts. One
 * that the container has changed is the container's.
 */
export function rewriteFiles(files: FileSetup[]): void {
  for (const file of files) {
    const written = engineFiles.get(file.path);
    if (!written || written.content === file.content) continue;
    step(`write ${file.path}`, () => {
      const limit = FILE_LIMIT;
      if (readText(written.source, limit) !== written.content) return;
      createFile(written.source, file.content, modeOf(file));
      written.content = file.content;
    });
  }
}

/** @param prepared where it is mounted, read-only; its network devices are the container's */
export function mountSys(prepared: string, readonly: boolean): void {
  step("mount /sys", () => {
    // The file system itself is read-only as long as it is mounted.
    if (!readonly) sys.unmount(prepared, 0);
    inRoot(ROOT, "/sys", "directory", (target) =>
      readonly
        ? sys.mount(prepared, target, null, MS_MOVE, null)
        : sys.mount("sysfs", target, "sysfs", SAFE, null),
    );
  });
}

/** The container is in another network namespace than the one whose devices are in its /sys. */
export function replaceSys(prepared: string): void {
  step("unmount /sys", () =>
    inRoot(ROOT, "/sys", "error", (target) => sys.unmount(target, MNT_DETACH)),
  );
  mountSys(prepared, true);
}

/**
 * Undoes the mounts that keep the disks busy. What cannot be unmounted (it is gone, or the container
 * has hidden it) is left: the disks are synced in any case.
 */
export function unmountAll(volumes: string[]): void {
  for (const target of [...volumes].reverse())
    tolerate(() =>
      inRoot(ROOT, target, "error", (path) => sys.unmount(path, 0)),
    );
  // Takes what is mounted inside of it along.
  tolerate(() => sys.unmount(ROOT, MNT_DETACH));
  tolerate(() => sys.unmount(DISK, 0));
  tolerate(unmountShares);
}

/** Undoes everything. The kernel may let go of the disks a moment later. */
export function removeRoot({ mounts = [] }: Setup): void {
  unmountAll(mounts.map(({ target }) => target));
  tolerate(() => sys.unmount(DISK, MNT_DETACH));
  step("unmount the image", () => sys.unmount(LOWER, MNT_DETACH));
  for (const { source } of engineFiles.values())
    sys.unlinkAt(AT_FDCWD, source, 0);
  engineFiles.clear();
}

/**
 * Whether nothing uses a container's disks: then the kernel has dropped all it knew of what is on them, as
 * it does when a block device is closed for the last time.
 */
export function areDisksFree({
  rootfs = SETUP_DEFAULTS.rootfs,
  mounts = [],
}: Setup): boolean {
  const disks = [rootfs.image, rootfs.writable];
  for (const mount of mounts) if (mount.type === "disk") disks.push(mount.disk);
  return disks.every((disk) => {
    const fd = unless(["EBUSY"], () =>
      sys.open(AT_FDCWD, device(disk), O_RDONLY | O_EXCL, 0),
    );
    if (fd !== undefined) sys.close(fd);
    return fd !== undefined;
  });
}

function tolerate(run: () => void): void {
  try {
    run();
  } catch (error) {
    if (!isSysError(error)) throw error;
  }
}

function device(disk: DiskIndex): string {
  if (!Number.isInteger(disk) || disk < 0 || disk > 25)
    throw new Failure("invalid", `no disk ${disk}`);
  return `/dev/vd${String.fromCharCode(97 + disk)}`;
}
