/** What PID 1 does for itself: the machine's own file systems, and the port to the host. */
import { PORT_NAME } from "../../protocol/index.js";
import {
  AT_FDCWD,
  MS_BIND,
  MS_MOVE,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  RLIMIT_NOFILE,
  RLIMIT_NPROC,
} from "./constants.js";
import { readText, writeText } from "./files.js";
import { isSysError, unless } from "./sys.js";

const SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC;
const PORTS = "/sys/class/virtio-ports";
const WORKING_SET_MS = "1000";
const PORT_TIMEOUT_MS = 10_000;
const OPEN_FILES = 1024 * 1024;

/** What it takes to find the port. */
export function mountSystem(): void {
  sys.umask(0);
  // Descriptors 0 to 2 must be taken: those of a child's pipes are to be others.
  while (sys.open(AT_FDCWD, "/", O_RDONLY, 0) < 3);
  // The initramfs itself cannot be pivoted away from; a mount over it can.
  sys.mount("/", "/root", null, MS_BIND, null);
  sys.chdir("/root");
  sys.mount(".", "/", null, MS_MOVE, null);
  sys.chroot(".");
  sys.mount("proc", "/proc", "proc", SAFE, null);
  sys.mount("sysfs", "/sys", "sysfs", SAFE, null);
  sys.mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, null);
}

/** What the agent needs for itself once it has said hello. */
export function mountWorkplace(): void {
  sys.mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=700");
  sys.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", SAFE, null);
  // The OOM killer comes when what was used in the last second cannot be kept, not after minutes of
  // reading the same pages again and again. A kernel from elsewhere may not have it.
  unless(["ENOENT"], () =>
    writeText("/sys/kernel/mm/lru_gen/min_ttl_ms", WORKING_SET_MS),
  );
  // Memory is compacted when someone wants a large page. To do it ahead the kernel looks twice a second whether
  // there is need, which is most of what an idle machine does.
  unless(["ENOENT"], () =>
    writeText("/proc/sys/vm/compaction_proactiveness", "0"),
  );
}

/** The agent is the last one to die for want of memory; its children begin with generous limits. */
export function protectSelf(): void {
  writeText("/proc/self/oom_score_adj", "-1000");
  sys.setrlimit(RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES);
  sys.setrlimit(RLIMIT_NPROC, -1, -1);
}

/** Opens a virtio-serial port by its name; it may take the kernel a moment to find it. */
export function openPort(wanted = PORT_NAME): number {
  for (let waited = 0; waited < PORT_TIMEOUT_MS; waited++) {
    for (const name of unless(["ENOENT"], () => sys.list(PORTS)) ?? []) {
      if (readName(name) !== wanted) continue;
      const port = unless(["ENOENT"], () =>
        sys.open(AT_FDCWD, `/dev/${name}`, O_RDWR | O_NONBLOCK, 0),
      );
      if (port !== undefined) return port;
    }
    sys.sleep(1);
  }
  throw new Error(`no virtio port named ${wanted}`);
}

function readName(port: string): string {
  try {
    return readText(`${PORTS}/${port}/name`).trim();
  } catch (error) {
    if (isSysError(error)) return "";
    throw error;
  }
}
