/** The container's /dev, as Docker makes it. */
import {
  AT_FDCWD,
  AT_SYMLINK_NOFOLLOW,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_STRICTATIME,
  O_DIRECTORY,
  O_PATH,
  S_IFBLK,
  S_IFCHR,
  S_IFMT,
} from "./constants.js";
import { step } from "./failure.js";
import { inRoot, openInRoot } from "./in-root.js";
import { ROOT } from "./in-root.js";

const NODES: readonly [name: string, major: number, minor: number][] = [
  ["null", 1, 3],
  ["zero", 1, 5],
  ["full", 1, 7],
  ["random", 1, 8],
  ["urandom", 1, 9],
  ["tty", 5, 0],
];

const LINKS: readonly [name: string, target: string][] = [
  ["fd", "/proc/self/fd"],
  ["stdin", "/proc/self/fd/0"],
  ["stdout", "/proc/self/fd/1"],
  ["stderr", "/proc/self/fd/2"],
  ["ptmx", "pts/ptmx"],
];

/**
 * Makes the container's /dev, and its /dev/pts and /dev/shm.
 * @param allDevices a privileged container sees the machine's devices, but not the agent's port
 * @returns a descriptor (O_PATH) of its /dev/pts, through which the agent opens terminals whatever
 * the container does to its /dev
 */
export function makeDevices(shmSize: number, allDevices: boolean): number {
  return step("make /dev", () => {
    inRoot(ROOT, "/dev", "directory", (target) =>
      sys.mount(
        "tmpfs",
        target,
        "tmpfs",
        MS_NOSUID | MS_STRICTATIME,
        "mode=755,size=65536k",
      ),
    );
    const dev = openInRoot(ROOT, "/dev", "error");
    try {
      for (const [name, major, minor] of NODES)
        sys.mknod(dev, name, S_IFCHR | 0o666, major, minor);
      if (allDevices) copyDevices(dev);
      for (const [name, target] of LINKS) sys.symlink(target, dev, name);
      for (const name of ["pts", "shm", "mqueue"]) sys.mkdir(dev, name, 0o755);
      const path = `/proc/self/fd/${dev}`;
      sys.mount(
        "devpts",
        `${path}/pts`,
        "devpts",
        MS_NOSUID | MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
      );
      sys.mount(
        "shm",
        `${path}/shm`,
        "tmpfs",
        MS_NOSUID | MS_NOEXEC | MS_NODEV,
        `mode=1777,size=${shmSize}`,
      );
      return sys.open(AT_FDCWD, `${path}/pts`, O_PATH | O_DIRECTORY, 0);
    } finally {
      sys.close(dev);
    }
  });
}

function copyDevices(dev: number): void {
  const made = new Set([...NODES.map(([name]) => name), "ptmx", "console"]);
  for (const name of sys.list("/dev")) {
    if (made.has(name) || name.startsWith("vport") || name.startsWith("hvc"))
      continue;
    const { mode, major, minor } = sys.stat(
      AT_FDCWD,
      `/dev/${name}`,
      AT_SYMLINK_NOFOLLOW,
    );
    const type = mode & S_IFMT;
    if (type === S_IFCHR || type === S_IFBLK)
      sys.mknod(dev, name, mode, major, minor);
  }
}
