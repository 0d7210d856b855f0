/**
 * What the child does between clone and exec. It runs in a copy of the agent, so it must not come back
 * to the agent's code: it executes the program, or says over a pipe why not and ends.
 */
import type { AgentError, Furnish, Spawn } from "../../protocol/index.js";
import {
  CAPABILITIES,
  capabilityNumbers,
  capabilityWords,
} from "./capabilities.js";
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  CLONE_NEWCGROUP,
  CLONE_NEWIPC,
  CLONE_NEWNS,
  CLONE_NEWUTS,
  O_RDONLY,
  PR_CAPBSET_DROP,
  PR_SET_KEEPCAPS,
  PR_SET_NO_NEW_PRIVS,
  S_IFDIR,
  S_IFMT,
  X_OK,
} from "./constants.js";
import type { Container } from "./container.js";
import { Failure, step, toAgentError } from "./failure.js";
import { readAhead, writeAll, writeText } from "./files.js";
import { readOrder } from "./first-process.js";
import { execErrorCode, lookPath, type PathProblem } from "./look-path.js";
import {
  enterContainer,
  enterRoot,
  makePath,
  protectPaths,
  setNames,
} from "./namespaces.js";
import { resourceNumber } from "./rlimits.js";
import { isSysError, unless } from "./sys.js";
import { readUserFiles } from "./user-files.js";
import { resolveUser, type ExecUser, type UserFiles } from "./users.js";

/** What the init of --init is called: Docker's name, by which native/main.c knows it. */
const INIT_NAME = "/sbin/docker-init";

export interface ChildPlan {
  spawn: Spawn;
  container: Container;
  /** Descriptors of stdin, stdout, stderr; none is 0, 1 or 2. -1 for stdin means /dev/null. */
  stdio: [number, number, number];
  /** A pidfd of the container's first process; undefined for that one itself. */
  init?: number;
  /** Close-on-exec: its end without a word tells the agent that the program runs. */
  report: number;
}

/** Becomes the program. */
export function runChild(plan: ChildPlan): never {
  orReport(plan.report, () => {
    const { spawn, container, stdio, init } = plan;
    writeText("/proc/self/oom_score_adj", String(spawn.oomScoreAdj));
    if (init === undefined) {
      enterContainer(container.setup, spawn, stdio[0]);
    } else {
      sys.setns(
        init,
        CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP,
      );
    }
    become(spawn, stdio, init === undefined, readUserFiles());
  });
}

/** Enters a container that is not known yet, and becomes the program when it is. */
export function runWaitingChild(plan: {
  furnish: Furnish;
  /** Where the order comes: a line of JSON. */
  order: number;
  /** Close-on-exec: its end tells the agent that the child waits for the order. */
  ready: number;
  stdio: ChildPlan["stdio"];
  report: number;
}): never {
  orReport(plan.report, () => {
    const { maskedPaths, readonlyPaths, capabilities } = plan.furnish;
    enterRoot(false);
    protectPaths(readonlyPaths, maskedPaths);
    const userFiles = readUserFiles();
    readLikely(plan.furnish.program);
    const kept = capabilityNumbers(capabilities);
    dropFromBounds(kept);
    sys.close(plan.ready);
    const { names, spawn } = readOrder(plan.order);
    writeText("/proc/self/oom_score_adj", String(spawn.oomScoreAdj));
    setNames(names);
    makePath(spawn.cwd);
    const [stdin, stdout, stderr] = plan.stdio;
    const given = [spawn.stdin ? stdin : -1, stdout, stderr] as const;
    become(spawn, given, true, userFiles, kept);
  });
}

/** Most programs fit into this. */
const READ_AHEAD = 2 * 1024 * 1024;

function readLikely({ name, path }: Furnish["program"]): void {
  try {
    readAhead(lookPath(name, path, checkExecutable), READ_AHEAD);
  } catch {
    // The container may run another, or its start says what is wrong.
  }
}

function orReport(report: number, run: () => void): never {
  try {
    run();
  } catch (error) {
    const answer: AgentError = toAgentError(error);
    try {
      writeAll(report, sys.encode(JSON.stringify(answer)));
    } catch {
      // The agent sees the pipe end, and then our exit code.
    }
  }
  sys.exit(127);
}

/**
 * @param isFirst it is the container's first process
 * @param bounds the capabilities that the process may have; undefined: all
 */
function become(
  spawn: Spawn,
  stdio: Readonly<ChildPlan["stdio"]>,
  isFirst: boolean,
  userFiles: UserFiles,
  bounds?: ReadonlySet<number>,
): void {
  const user = resolveUser(spawn.user, spawn.groups, userFiles);
  sys.setsid();
  takeStdio(stdio, user.uid, spawn.tty !== undefined);
  for (const { name, soft, hard } of spawn.rlimits)
    step(`set rlimit ${name}`, () =>
      sys.setrlimit(resourceNumber(name), soft, hard),
    );
  const env = environmentFor(spawn.env, user);
  const late = !enterFolder(spawn.cwd);
  dropPrivileges(user, spawn.capabilities, bounds);
  if (late) step(chdirError(spawn.cwd), () => sys.chdir(spawn.cwd));
  if (spawn.noNewPrivileges) sys.prctl(PR_SET_NO_NEW_PRIVS, 1, 0);
  const program = lookPath(
    spawn.args[0] ?? "",
    env.get("PATH"),
    checkExecutable,
  );
  sys.umask(0o022);
  sys.resetSignals();
  const first = isFirst && spawn.init;
  try {
    // As an init the agent's ELF executes itself, see native/init.c.
    sys.execve(
      first ? "/proc/self/exe" : program,
      first ? [INIT_NAME, "--", ...spawn.args] : spawn.args,
      [...env].map(([key, value]) => `${key}=${value}`),
    );
  } catch (error) {
    if (!isSysError(error)) throw error;
    throw new Failure(
      execErrorCode(error.errno),
      `exec ${program}: ${error.message}`,
      error.errno,
    );
  }
}

/** The user owns its pipes, so that it can open /dev/stdout again. */
function takeStdio(
  stdio: Readonly<ChildPlan["stdio"]>,
  uid: number,
  terminal: boolean,
): void {
  stdio.forEach((fd, target) => {
    const source = fd < 0 ? sys.open(AT_FDCWD, "/dev/null", O_RDONLY, 0) : fd;
    if (fd >= 0 && uid !== 0)
      unless(["EPERM", "EINVAL", "EROFS"], () =>
        sys.fchown(source, uid, sys.stat(source, "", AT_EMPTY_PATH).gid),
      );
    sys.dup(source, target);
  });
  if (terminal) sys.controlTerminal(0);
}

/** The last value of a name counts; HOME is the user's unless it is given. */
function environmentFor(
  entries: string[],
  user: ExecUser,
): Map<string, string> {
  const env = new Map<string, string>();
  for (const entry of entries) {
    const equals = entry.indexOf("=");
    if (equals > 0) env.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  if (!env.get("HOME")) env.set("HOME", user.home === "" ? "/" : user.home);
  return env;
}

/** False when only the user itself may be able to enter it (a folder of a network file system, say). */
function enterFolder(path: string): boolean {
  if (path === "") return true;
  return step(
    chdirError(path),
    () => unless(["EACCES", "EPERM"], () => (sys.chdir(path), true)) ?? false,
  );
}

function chdirError(path: string): string {
  return `chdir to cwd (${JSON.stringify(path)}) set in config.json failed`;
}

/**
 * @param names of the capabilities to keep
 * @param bounds what they are now; undefined: everything
 */
export function dropPrivileges(
  user: Pick<ExecUser, "uid" | "gid" | "groups">,
  names: string[],
  bounds?: ReadonlySet<number>,
): void {
  const kept = capabilityNumbers(names);
  dropFromBounds(kept, bounds);
  sys.prctl(PR_SET_KEEPCAPS, 1, 0);
  sys.setgroups(user.groups);
  sys.setgid(user.gid);
  sys.setuid(user.uid);
  sys.prctl(PR_SET_KEEPCAPS, 0, 0);
  const [low, high] = capabilityWords(kept);
  sys.setCapabilities(low, high);
}

/** @param bounds what they are now; undefined: everything */
function dropFromBounds(
  kept: ReadonlySet<number>,
  bounds?: ReadonlySet<number>,
): void {
  for (const number of bounds ?? CAPABILITIES.keys())
    // A kernel that does not know it says so with EINVAL.
    if (!kept.has(number))
      unless(["EINVAL"], () => sys.prctl(PR_CAPBSET_DROP, number, 0));
}

/** What keeps the caller from executing a file. */
export function checkExecutable(path: string): PathProblem | undefined {
  try {
    const { mode } = sys.stat(AT_FDCWD, path, 0);
    if ((mode & S_IFMT) === S_IFDIR)
      return { errno: "EISDIR", text: "is a directory" };
  } catch (error) {
    if (!isSysError(error)) throw error;
    return { errno: error.errno, text: error.message, call: `stat ${path}` };
  }
  try {
    sys.access(path, X_OK);
  } catch (error) {
    if (!isSysError(error)) throw error;
    return { errno: error.errno, text: error.message };
  }
  return undefined;
}
