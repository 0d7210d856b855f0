/**
 * What the child does between clone and exec. It runs in a copy of the agent, so it must not come back
 * to the agent's code: it executes the program, or says over a pipe why not and ends.
 */
import {
  SETUP_DEFAULTS,
  SPAWN_DEFAULTS,
  type AgentError,
  type Furnish,
  type Spawn,
} from "../../protocol/index.js";
import {
  CAPABILITIES,
  DEFAULT_CAPABILITIES,
  capabilitySet,
  type CapabilitySet,
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
    adjustOomScore(spawn.oomScoreAdj ?? SPAWN_DEFAULTS.oomScoreAdj);
    if (init === undefined) {
      enterContainer(container.setup, spawn, stdio[0]);
    } else {
      sys.setns(
        init,
        CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP,
      );
    }
    leaveAgent();
    takeStdio(stdio);
    if (spawn.tty) sys.controlTerminal(0);
    const userFiles = readUserFiles();
    become(spawn, stdio, init === undefined, { userFiles });
  });
}

/** Enters a container that is not known yet, and becomes the program when it is. */
export function runWaitingChild(plan: {
  furnish: Furnish;
  /** Makes the process that goes on from here. @returns its PID as the agent sees it */
  begin: () => number;
  /** Where the order comes, see `readOrder`. */
  order: number;
  /** Takes the PID when the child waits for the order. */
  ready: number;
  stdio: ChildPlan["stdio"];
  report: number;
}): never {
  orReport(plan.report, () => {
    const pid = step("clone", plan.begin);
    adjustOomScore(SPAWN_DEFAULTS.oomScoreAdj);
    enterRoot(false);
    protectPaths(SETUP_DEFAULTS.readonlyPaths, SETUP_DEFAULTS.maskedPaths);
    leaveAgent();
    const [stdin, stdout, stderr] = plan.stdio;
    takeStdio([-1, stdout, stderr]);
    dropFromBounds(DEFAULT_CAPABILITIES.numbers);
    const userFiles = readUserFiles();
    const ahead = {
      userFiles,
      user: resolveUser(SPAWN_DEFAULTS.user, [], userFiles),
      bounds: DEFAULT_CAPABILITIES,
      program: {
        ...plan.furnish.program,
        found: readLikely(plan.furnish.program),
      },
    };
    const buffer = new ArrayBuffer(ORDER_SIZE);
    const { order, ready, report } = plan;
    closeOthers([order, ready, report, ...plan.stdio]);
    sys.ownMemory();
    writeAll(ready, sys.encode(String(pid)));
    sys.close(ready);
    const { names, spawn } = readOrder(order, buffer);
    if (spawn.oomScoreAdj) adjustOomScore(spawn.oomScoreAdj);
    setNames(names);
    if (spawn.cwd !== undefined) makePath(spawn.cwd);
    if (spawn.stdin) sys.dup(stdin, 0);
    const given = [spawn.stdin ? stdin : -1, stdout, stderr] as const;
    become(spawn, given, true, ahead);
  });
}

/** Most orders fit into this. */
const ORDER_SIZE = 4096;

function adjustOomScore(score: number): void {
  writeText("/proc/self/oom_score_adj", String(score));
}

/** What it has of the agent that no program is to have. */
function leaveAgent(): void {
  sys.setsid();
  sys.umask(0o022);
  sys.resetSignals();
}

/** Most programs fit into this. */
const READ_AHEAD = 2 * 1024 * 1024;

/** @returns where it is, if it is there */
function readLikely({ name, path }: Furnish["program"]): string | undefined {
  try {
    const found = lookPath(name, path, checkExecutable);
    readAhead(found, READ_AHEAD);
    return found;
  } catch {
    // The container may run another, or its start says what is wrong.
    return undefined;
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

/** What is known before the process is. */
interface Ahead {
  userFiles: UserFiles;
  /** The default one. */
  user?: ExecUser;
  /** The capabilities that the process may have; undefined: all. */
  bounds?: CapabilitySet;
  /** Where a program was found by this name and PATH: by that user, with those capabilities, in the root folder. */
  program?: Furnish["program"] & { found: string | undefined };
}

/** @param isFirst it is the container's first process */
function become(
  spawn: Spawn,
  stdio: Readonly<ChildPlan["stdio"]>,
  isFirst: boolean,
  ahead: Ahead,
): void {
  const user =
    spawn.user === undefined && spawn.groups === undefined && ahead.user
      ? ahead.user
      : resolveUser(spawn.user ?? "", spawn.groups ?? [], ahead.userFiles);
  if (user.uid !== 0) giveStdio(stdio, user.uid);
  for (const { name, soft, hard } of spawn.rlimits ?? [])
    step(`set rlimit ${name}`, () =>
      sys.setrlimit(resourceNumber(name), soft, hard),
    );
  const { env, path } = environmentFor(spawn.env, user);
  // It is in the root folder.
  const cwd = spawn.cwd ?? "";
  const late = !enterFolder(cwd);
  const capabilities = spawn.capabilities
    ? capabilitySet(spawn.capabilities)
    : DEFAULT_CAPABILITIES;
  dropPrivileges(user, capabilities, ahead.bounds);
  if (late) step(chdirError(cwd), () => sys.chdir(cwd));
  if (spawn.noNewPrivileges) sys.prctl(PR_SET_NO_NEW_PRIVS, 1, 0);
  const name = spawn.args[0] ?? "";
  const likely = ahead.program;
  const isLikely =
    user === ahead.user &&
    !spawn.capabilities &&
    !spawn.cwd &&
    name === likely?.name &&
    path === likely.path;
  const program =
    (isLikely ? likely.found : undefined) ??
    lookPath(name, path, checkExecutable);
  const first = isFirst && spawn.init;
  try {
    // As an init the agent's ELF executes itself, see native/init.c.
    sys.execve(
      first ? "/proc/self/exe" : program,
      first ? [INIT_NAME, "--", ...spawn.args] : spawn.args,
      env,
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

/** Now, and not when the program is executed. @param kept what is needed until then, beside stdin, stdout, stderr */
function closeOthers(kept: number[]): void {
  let first = 3;
  for (const fd of kept.sort((a, b) => a - b)) {
    if (fd > first) sys.closeRange(first, fd - 1);
    first = fd + 1;
  }
  sys.closeRange(first, -1);
}

function takeStdio(stdio: Readonly<ChildPlan["stdio"]>): void {
  stdio.forEach((fd, target) => {
    const source = fd < 0 ? sys.open(AT_FDCWD, "/dev/null", O_RDONLY, 0) : fd;
    sys.dup(source, target);
  });
}

/** The user owns its pipes, so that it can open /dev/stdout again. */
function giveStdio(stdio: Readonly<ChildPlan["stdio"]>, uid: number): void {
  for (const fd of stdio)
    if (fd >= 0)
      unless(["EPERM", "EINVAL", "EROFS"], () =>
        sys.fchown(fd, uid, sys.stat(fd, "", AT_EMPTY_PATH).gid),
      );
}

const HOME = "HOME=";
const PATH = "PATH=";

/** HOME is the user's unless it is given. */
function environmentFor(
  entries: string[],
  { home }: ExecUser,
): { env: string[]; path: string | undefined } {
  const env: string[] = [];
  let path: string | undefined;
  let hasHome = false;
  for (const entry of entries) {
    if (entry === HOME) continue;
    if (entry.startsWith(PATH)) path = entry.slice(PATH.length);
    else if (entry.startsWith(HOME)) hasHome = true;
    env.push(entry);
  }
  if (!hasHome) env.push(HOME + (home === "" ? "/" : home));
  return { env, path };
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
 * @param kept the capabilities to keep
 * @param bounds what they are now; undefined: everything
 */
export function dropPrivileges(
  { uid, gid, groups }: Pick<ExecUser, "uid" | "gid" | "groups">,
  { numbers, words }: CapabilitySet,
  bounds?: CapabilitySet,
): void {
  if (numbers !== bounds?.numbers) dropFromBounds(numbers, bounds?.numbers);
  if (uid !== 0) sys.prctl(PR_SET_KEEPCAPS, 1, 0);
  sys.setgroups(groups);
  // The agent is root.
  if (gid !== 0) sys.setgid(gid);
  if (uid !== 0) {
    sys.setuid(uid);
    sys.prctl(PR_SET_KEEPCAPS, 0, 0);
  }
  sys.setCapabilities(words[0], words[1]);
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
