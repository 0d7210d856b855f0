/**
 * The container's first process moves into the container: its own namespaces (made by clone), the
 * prepared root, and those file systems that belong to the namespaces.
 */
import {
  SETUP_DEFAULTS,
  type Setup,
  type Spawn,
} from "../../protocol/index.js";
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_SYMLINK_NOFOLLOW,
  CLONE_NEWCGROUP,
  MNT_DETACH,
  MS_BIND,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  MS_REC,
  MS_REMOUNT,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
} from "./constants.js";
import { Failure, step } from "./failure.js";
import { writeText } from "./files.js";
import { ROOT } from "./in-root.js";
import { unless } from "./sys.js";

const SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC;

/** @param terminal the slave of the process's terminal, to be its /dev/console too */
export function enterContainer(
  setup: Setup,
  spawn: Spawn,
  terminal: number,
): void {
  enterRoot(setup.privileged ?? false);
  setNames(setup);
  if (spawn.tty) makeConsole(terminal);
  for (const [name, value] of Object.entries(setup.sysctls ?? {}))
    setSysctl(name, value);
  const { readonlyPaths, maskedPaths } = { ...SETUP_DEFAULTS, ...setup };
  protectPaths(readonlyPaths, maskedPaths);
  if (spawn.cwd !== undefined) makePath(spawn.cwd);
  if (setup.rootfs?.readonly) {
    // The engine's files are mounts of their own.
    for (const { path } of setup.files) makeReadonly(path);
    step("make the root read-only", () =>
      sys.mount(null, "/", null, MS_REMOUNT | MS_BIND | MS_RDONLY, null),
    );
  }
}

/** The part of it that is the same for all containers. The process is in the root folder then. */
export function enterRoot(privileged: boolean): void {
  sys.unshare(CLONE_NEWCGROUP);
  sys.chdir(ROOT);
  step("pivot_root", () => sys.pivotRoot());
  sys.unmount(".", MNT_DETACH);
  sys.chdir("/");

  mountAt("/proc", "proc", SAFE);
  mountAt("/dev/mqueue", "mqueue", SAFE);
  mountAt("/sys/fs/cgroup", "cgroup2", SAFE | (privileged ? 0 : MS_RDONLY));
}

export function setNames({
  hostname,
  domainname,
}: Pick<Setup, "hostname" | "domainname">): void {
  sys.setHostname(hostname);
  if (domainname) sys.setDomainname(domainname);
}

export function protectPaths(
  readonlyPaths: readonly string[],
  maskedPaths: readonly string[],
): void {
  for (const path of readonlyPaths) makeReadonly(path);
  for (const path of maskedPaths) mask(path);
}

/** Mounts on a folder of the container that must not be a link to elsewhere. */
function mountAt(target: string, type: string, flags: number): void {
  step(`mount ${target}`, () => {
    unless(["EEXIST"], () => sys.mkdir(AT_FDCWD, target, 0o755));
    const { mode } = sys.stat(AT_FDCWD, target, AT_SYMLINK_NOFOLLOW);
    if ((mode & S_IFMT) !== S_IFDIR)
      throw new Failure(
        "system",
        `${target} of the image is not a directory`,
        "ENOTDIR",
      );
    sys.mount(type, target, type, flags, null);
  });
}

function makeConsole(terminal: number): void {
  step("make /dev/console", () => {
    // By its name in this mount namespace: the descriptor's own mount is the agent's.
    const { minor } = sys.stat(terminal, "", AT_EMPTY_PATH);
    sys.mknod(AT_FDCWD, "/dev/console", S_IFREG | 0o600, 0, 0);
    sys.mount(`/dev/pts/${minor}`, "/dev/console", null, MS_BIND, null);
  });
}

function setSysctl(name: string, value: string): void {
  const path = name.split(".").join("/");
  if (path.split("/").some((part) => part === "" || part === ".."))
    throw new Failure("invalid", `bad sysctl name ${JSON.stringify(name)}`);
  step(`sysctl ${name}`, () => writeText(`/proc/sys/${path}`, value));
}

function makeReadonly(path: string): void {
  step(`make ${path} read-only`, () => {
    if (
      !unless(
        ["ENOENT"],
        () => (sys.mount(path, path, null, MS_BIND | MS_REC, null), true),
      )
    )
      return;
    const flags =
      path.startsWith("/proc/") || path.startsWith("/sys/") ? SAFE : 0;
    sys.mount(null, path, null, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, null);
  });
}

function mask(path: string): void {
  step(`mask ${path}`, () => {
    const status = unless(["ENOENT", "ENOTDIR"], () =>
      sys.stat(AT_FDCWD, path, 0),
    );
    if (!status) return;
    if ((status.mode & S_IFMT) === S_IFDIR)
      sys.mount("tmpfs", path, "tmpfs", MS_RDONLY, null);
    else sys.mount("/dev/null", path, null, MS_BIND, null);
  });
}

/** mkdir -p, following the container's own links: this is inside of its root. */
export function makePath(path: string): void {
  if (path === "") return;
  step(`mkdir ${path}`, () => {
    let made = path.startsWith("/") ? "" : ".";
    for (const name of path.split("/").filter(Boolean)) {
      made += `/${name}`;
      unless(["EEXIST"], () => sys.mkdir(AT_FDCWD, made, 0o755));
    }
  });
}
