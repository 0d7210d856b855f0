/** The container's /dev, as Docker makes it. */
import { SETUP_DEFAULTS } from "../../protocol/index.js";
import {
  AT_FDCWD,
  AT_SYMLINK_NOFOLLOW,
  MS_MOVE,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_REMOUNT,
  MS_STRICTATIME,
  O_DIRECTORY,
  O_PATH,
  S_IFBLK,
  S_IFCHR,
  S_IFMT,
} from "./constants.js";
import { step } from "./failure.js";
import { makeFolder } from "./files.js";
import { inRoot, ROOT } from "./in-root.js";

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

/** Where it is made, before it is moved to its place in a container. */
const DEV = "/run/dev";
const SHM_FLAGS = MS_NOSUID | MS_NOEXEC | MS_NODEV;

/**
 * Makes a container's /dev, with its /dev/pts and /dev/shm.
 * @returns a descriptor (O_PATH) of its /dev/pts, through which the agent opens terminals whatever
 * the container does to its /dev
 */
export function makeDevices(): number {
  return step("make /dev", () => {
    makeFolder(DEV, 0o700);
    const flags = MS_NOSUID | MS_STRICTATIME;
    sys.mount("tmpfs", DEV, "tmpfs", flags, "mode=755,size=65536k");
    for (const [name, major, minor] of NODES)
      sys.mknod(AT_FDCWD, `${DEV}/${name}`, S_IFCHR | 0o666, major, minor);
    for (const [name, target] of LINKS)
      sys.symlink(target, AT_FDCWD, `${DEV}/${name}`);
    for (const name of ["pts", "shm", "mqueue"])
      sys.mkdir(AT_FDCWD, `${DEV}/${name}`, 0o755);
    sys.mount(
      "devpts",
      `${DEV}/pts`,
      "devpts",
      MS_NOSUID | MS_NOEXEC,
      "newinstance,ptmxmode=0666,mode=0620,gid=5",
    );
    const options = `mode=1777,size=${SETUP_DEFAULTS.shmSize}`;
    sys.mount("shm", `${DEV}/shm`, "tmpfs", SHM_FLAGS, options);
    return sys.open(AT_FDCWD, `${DEV}/pts`, O_PATH | O_DIRECTORY, 0);
  });
}

/**
 * Puts it into its place.
 * @param allDevices a privileged container sees the machine's devices, but not the agent's port
 */
export function mountDevices(shmSize: number, allDevices: boolean): void {
  step("mount /dev", () => {
    if (allDevices) copyDevices();
    if (shmSize !== SETUP_DEFAULTS.shmSize) {
      const flags = MS_REMOUNT | SHM_FLAGS;
      sys.mount(null, `${DEV}/shm`, null, flags, `size=${shmSize}`);
    }
    inRoot(ROOT, "/dev", "directory", (target) =>
      sys.mount(DEV, target, null, MS_MOVE, null),
    );
  });
}

function copyDevices(): void {
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
      sys.mknod(AT_FDCWD, `${DEV}/${name}`, mode, major, minor);
  }
}
