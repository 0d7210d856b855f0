/**
 * Loads a program of the image ahead: a process that is thrown away executes it, and gets as far as its first
 * system call that could have an effect (see call-filter.ts). Its pages are read then, and under emulation the code
 * of its loader and of its libraries' start is translated.
 */
import type { Load, LoadResult } from "../../protocol/index.js";
import { capabilitySet } from "./capabilities.js";
import { checkExecutable, dropPrivileges } from "./child.js";
import {
  AT_FDCWD,
  CLONE_NEWNS,
  CLONE_NEWPID,
  MNT_DETACH,
  MS_BIND,
  MS_NODEV,
  MS_NOSUID,
  MS_RDONLY,
  MS_REMOUNT,
  O_RDONLY,
  PR_SET_NO_NEW_PRIVS,
  SIGKILL,
} from "./constants.js";
import { filterCalls } from "./call-filter.js";
import { step } from "./failure.js";
import { writeText } from "./files.js";
import { ROOT } from "./in-root.js";
import type { EventLoop } from "./loop.js";
import { lookPath } from "./look-path.js";
import { resourceNumber } from "./rlimits.js";

/** A program that computes, or waits for something, is loaded far enough after so many milliseconds. */
const LIMIT_MS = 400;
const MIB = 1024 * 1024;
/** Of addresses there are enough for runtimes that reserve many; what it writes to is memory. */
const LIMITS = { core: 0, data: 64 * MIB, as: 4096 * MIB };
/** Who most containers' user is, and owns most files, without any capability. */
const USER = { uid: 0, gid: 0, groups: [] };

export class Loading {
  /** Resolves when it was reaped. */
  readonly result: Promise<LoadResult>;
  private resolve: (result: LoadResult) => void = () => undefined;
  private readonly cancelLimit: () => void;

  private constructor(
    readonly pid: number,
    loop: EventLoop,
  ) {
    this.result = new Promise((resolve) => {
      this.resolve = resolve;
    });
    this.cancelLimit = loop.after(LIMIT_MS, () => sys.kill(pid, SIGKILL));
  }

  /**
   * In the agent's cgroup, so that nothing is counted as the container's, and with a mount and a PID namespace of its
   * own: it may make no call that the others are about.
   */
  static begin(program: Load["program"], loop: EventLoop): Loading {
    const flags = CLONE_NEWPID | CLONE_NEWNS;
    const pid = step("clone", () => sys.clone(flags, -1));
    if (pid === 0) runLoading(program);
    return new Loading(pid, loop);
  }

  /** Its end was seen by wait(2). */
  ended(result: LoadResult): void {
    this.cancelLimit();
    sys.ownMemory();
    this.resolve(result);
  }
}

function runLoading({ name, path }: Load["program"]): never {
  try {
    // Should the machine's memory not do.
    writeText("/proc/self/oom_score_adj", "1000");
    const nothing = sys.open(AT_FDCWD, "/dev/null", O_RDONLY, 0);
    for (const target of [0, 1, 2]) sys.dup(nothing, target);
    enterView();
    for (const [resource, limit] of Object.entries(LIMITS))
      sys.setrlimit(resourceNumber(resource), limit, limit);
    dropPrivileges(USER, capabilitySet([]));
    const found = lookPath(name, path, checkExecutable);
    sys.resetSignals();
    sys.prctl(PR_SET_NO_NEW_PRIVS, 1, 0);
    filterCalls();
    sys.execve(found, [name], path === "" ? [] : [`PATH=${path}`]);
  } catch {
    // The container may run another, or its start says what is wrong.
  }
  sys.exit(127);
}

/** The image's files and nothing else: no devices, no /proc, none of the engine's files. */
function enterView(): void {
  sys.mount(ROOT, ROOT, null, MS_BIND, null);
  sys.chdir(ROOT);
  sys.pivotRoot();
  sys.unmount(".", MNT_DETACH);
  sys.chdir("/");
  const flags = MS_RDONLY | MS_NODEV | MS_NOSUID;
  sys.mount(null, "/", null, MS_REMOUNT | MS_BIND | flags, null);
}
