/**
 * The system calls of native/sys.c. A failed call throws an Error with `errno` (the errno's name);
 * see {@link isSysError}. Offsets and lengths are bytes; numbers above 2^53 do not occur.
 *
 * `sys` is there in the agent only: modules with pure functions, which tests import in node, must not
 * touch it when they load.
 */
export interface Sys {
  /** When the agent's first instruction ran, in milliseconds of CLOCK_MONOTONIC. */
  readonly startedAt: number;
  /** Memory of its own mapping: untouched pages cost nothing, and it goes back when collected. */
  allocate(size: number): ArrayBuffer;
  copy(
    source: ArrayBuffer,
    at: number,
    length: number,
    target: ArrayBuffer,
    targetAt: number,
  ): void;
  /** UTF-8 of a string. */
  encode(text: string): ArrayBuffer;
  /** Invalid UTF-8 becomes U+FFFD. */
  decode(bytes: ArrayBuffer, at: number, length: number): string;
  /** Runs promise callbacks until none is left. Throws what a callback threw. */
  runJobs(): void;
  /** Collects garbage cycles. */
  collect(): void;
  /** After a clone: parts memory from the other process's at once, and not page by page when it is written to. */
  ownMemory(): void;

  /** openat(2), always close-on-exec. */
  open(directory: number, path: string, flags: number, mode: number): number;
  close(fd: number): void;
  /** Bytes read, 0 at the end, -1 when it would block. */
  read(fd: number, bytes: ArrayBuffer, at: number, length: number): number;
  /**
   * The same by as many calls as it takes until the range is full or nothing more is there now, for what gives
   * little at a time. An error that comes after some bytes is left to the next call.
   */
  readMany(fd: number, bytes: ArrayBuffer, at: number, length: number): number;
  /** Bytes written, -1 when it would block. */
  write(fd: number, bytes: ArrayBuffer, at: number, length: number): number;
  stat(directory: number, path: string, flags: number): Stat;
  /** Bytes in use on the file system a path is on. */
  bytesUsed(path: string): number;
  /** faccessat(2) with the effective IDs. */
  access(path: string, mode: number): void;
  /** Names in a folder without "." and "..". */
  list(path: string): string[];
  readlink(directory: number, path: string): string;
  mkdir(directory: number, path: string, mode: number): void;
  mknod(
    directory: number,
    path: string,
    mode: number,
    major: number,
    minor: number,
  ): void;
  symlink(target: string, directory: number, path: string): void;
  fchmod(fd: number, mode: number): void;
  fchown(fd: number, uid: number, gid: number): void;
  /** Read end and write end, close-on-exec, blocking. */
  pipe(): [number, number];
  /** dup2(2); the target survives exec, also when both are the same. */
  dup(fd: number, target: number): void;
  /** Another descriptor, close-on-exec, of the same open file. */
  duplicate(fd: number): number;
  /** The same with a number of at least `least`. */
  duplicateAbove(fd: number, least: number): number;
  /** Closes all descriptors from the first number to the last; -1: to the end. */
  closeRange(first: number, last: number): void;
  nonblock(fd: number): void;
  setPipeSize(fd: number, size: number): void;
  sync(): void;

  mount(
    source: string | null,
    target: string,
    type: string | null,
    flags: number,
    data: string | null,
  ): void;
  unmount(target: string, flags: number): void;
  /** pivot_root(".", "."). */
  pivotRoot(): void;
  chroot(path: string): void;
  chdir(path: string): void;

  /** clone3(2) as a fork: 0 in the child. `cgroup` is a descriptor of a cgroup folder, or -1. */
  clone(flags: number, cgroup: number): number;
  /**
   * Makes a child of the caller's parent, in a cgroup, that goes on in the caller's memory; comes back in that child
   * only, with its PID as the caller sees it. The caller keeps that memory, and nothing else, until it is killed: what
   * an execve of the child would have to give back.
   */
  cloneOnto(flags: number, cgroup: number): number;
  pidfd(pid: number): number;
  setns(fd: number, flags: number): void;
  unshare(flags: number): void;
  /** Reaps one ended child; null when there is none. `code` is 128 + signal for a killed one. */
  wait(): { pid: number; code: number; signal: number } | null;
  /** Waits until that child has ended. */
  reap(pid: number): number;
  kill(pid: number, signal: number): void;
  execve(path: string, args: string[], env: string[]): void;
  exit(code: number): never;
  setsid(): void;
  setgroups(groups: number[]): void;
  /** Real, effective and saved ID. */
  setgid(gid: number): void;
  setuid(uid: number): void;
  /** Effective and permitted set in two words of 32 bits. */
  setCapabilities(low: number, high: number): void;
  prctl(option: number, second: number, third: number): number;
  /** A negative limit means none. */
  setrlimit(resource: number, soft: number, hard: number): void;
  umask(mask: number): number;
  resetSignals(): void;

  /** The slave of a pty master, unlocked. */
  openTerminal(master: number): number;
  terminalNumber(master: number): number;
  controlTerminal(fd: number): void;
  resizeTerminal(fd: number, rows: number, columns: number): void;

  /** A clock of clock_gettime(2), in milliseconds. */
  clock(id: number): number;
  /** Sets the wall clock, in milliseconds since the epoch. */
  setClock(milliseconds: number): void;
  /** Blocks for so many milliseconds. */
  sleep(milliseconds: number): void;
  /** Credits the bytes to the random pool open as `fd` and makes the kernel reseed. */
  addEntropy(fd: number, bytes: ArrayBuffer, at: number, length: number): void;
  /** Lets a BPF program decide which devices a cgroup's processes may open. */
  filterDevices(cgroup: number, program: ArrayBuffer): void;
  /** Lets a BPF program of the classic kind decide which calls this process may make from now on. */
  filterCalls(program: ArrayBuffer): void;
  setHostname(name: string): void;
  setDomainname(name: string): void;
  /** Release of the kernel. */
  release(): string;
  reboot(command: number): void;

  socket(domain: number, type: number, protocol: number): number;
  send(fd: number, bytes: ArrayBuffer, at: number, length: number): number;
  receive(fd: number, bytes: ArrayBuffer, at: number, length: number): number;
  /** inet_pton(3) into a buffer of 16 bytes: whether the text is an address of that family. */
  inetPton(family: number, text: string, bytes: ArrayBuffer): boolean;

  epollCreate(): number;
  epollControl(
    epoll: number,
    operation: number,
    fd: number,
    events: number,
  ): void;
  /** Fills `events` with pairs of 32-bit words (descriptor, events); gives their count. */
  epollWait(epoll: number, events: ArrayBuffer, timeout: number): number;
  /** Blocks these signals and gives a descriptor that is readable when one is pending. */
  signalfd(...signals: number[]): number;
}

/**
 * Calls on trees of files that anybody may have written (native/tree.c). A name is {@link Bytes}: a
 * string with one character (0 to 255) a byte. A folder is an open descriptor or AT_FDCWD.
 */
export interface Tree {
  bytesToText(bytes: ArrayBuffer, at: number, length: number): Bytes;
  /** Writes the bytes at `at`; gives their count. */
  textToBytes(text: Bytes, bytes: ArrayBuffer, at: number): number;
  fill(bytes: ArrayBuffer, at: number, length: number, value: number): void;
  /** Sum of the bytes. */
  sum(bytes: ArrayBuffer, at: number, length: number): number;
  /** What is before the first zero byte. */
  textBefore0(bytes: ArrayBuffer, at: number, length: number): Bytes;
  /**
   * Reads fields of octal digits, with spaces around them, each up to a zero byte.
   * @param fields pairs of 16-bit words: a field's place behind `at`, and its length
   * @param values a double for each; -1 for what is something else
   */
  octals(
    bytes: ArrayBuffer,
    at: number,
    fields: ArrayBuffer,
    values: ArrayBuffer,
  ): void;
  /** Writes such fields, with zeros before the numbers; what does not fit is cut off. */
  putOctals(
    bytes: ArrayBuffer,
    at: number,
    fields: ArrayBuffer,
    values: ArrayBuffer,
  ): void;

  openAt(directory: number, name: Bytes, flags: number, mode: number): number;
  /** The same; gives the negative errno where it fails: no exception, which would be dear. */
  tryOpenAt(
    directory: number,
    name: Bytes,
    flags: number,
    mode: number,
  ): number;
  /** Fills `out` by {@link StatField}. */
  statAt(directory: number, name: Bytes, flags: number, out: ArrayBuffer): void;
  /** Names in an open folder without "." and "..", sorted. */
  namesIn(fd: number): Bytes[];
  readlinkAt(directory: number, name: Bytes): Bytes;
  mkdirAt(directory: number, name: Bytes, mode: number): void;
  mknodAt(
    directory: number,
    name: Bytes,
    mode: number,
    major: number,
    minor: number,
  ): void;
  symlinkAt(target: Bytes, directory: number, name: Bytes): void;
  /** Makes `name` a hard link of `old`, which is not followed. */
  linkAt(from: number, old: Bytes, to: number, name: Bytes): void;
  unlinkAt(directory: number, name: Bytes, flags: number): void;
  /** Links are not followed. */
  chownAt(directory: number, name: Bytes, uid: number, gid: number): void;
  /** Links are followed. */
  chmodAt(directory: number, name: Bytes, mode: number): void;
  /** Owner, mode, and times of access and modification of an open file, in this order. What is so already is left. */
  setStatus(
    fd: number,
    uid: number,
    gid: number,
    mode: number,
    seconds: number,
    nanoseconds: number,
  ): void;
  /** Sets the times of access and modification; links are not followed. */
  timesAt(
    directory: number,
    name: Bytes,
    seconds: number,
    nanoseconds: number,
  ): void;
  /** Extended attributes of an open file: [name, value, …] or null. */
  xattrsOf(fd: number): Bytes[] | null;
  /** [name, value, …] or null; links are not followed. Changes the working folder. */
  xattrsAt(directory: number, name: Bytes): Bytes[] | null;
  /** Links are not followed. Changes the working folder. */
  setXattrAt(
    directory: number,
    name: Bytes,
    attribute: Bytes,
    value: Bytes,
  ): void;
  /** Copies bytes of a file to a pipe; gives their count, 0 at the file's end. */
  sendfile(target: number, source: number, count: number): number;
  /** Moves bytes of a pipe to a file; gives their count, 0 at the pipe's end. */
  splice(source: number, target: number, count: number): number;
}

/** A string with one character (0 to 255) a byte. */
export type Bytes = string;

/** Places in the Float64Array that `statAt` fills. */
export const StatField = {
  Mode: 0,
  Uid: 1,
  Gid: 2,
  Size: 3,
  /** Of the device that a device node stands for. */
  Major: 4,
  Minor: 5,
  /** Of the file system it is on. */
  Device: 6,
  Inode: 7,
  Links: 8,
  Seconds: 9,
  Nanoseconds: 10,
} as const;
/** Length of that array. */
export const STAT_FIELDS = 12;

export interface Stat {
  mode: number;
  uid: number;
  gid: number;
  size: number;
  /** Of the device that a device node stands for. */
  major: number;
  minor: number;
}

declare global {
  const sys: Sys & Tree;
}

/** A failed system call. */
export interface SysError extends Error {
  errno: string;
}

export function isSysError(error: unknown): error is SysError {
  return (
    error instanceof Error &&
    typeof (error as Partial<SysError>).errno === "string"
  );
}

/** Runs `call`; gives undefined when it fails with one of these errnos. */
export function unless<T>(errnos: string[], call: () => T): T | undefined {
  try {
    return call();
  } catch (error) {
    if (isSysError(error) && errnos.includes(error.errno)) return undefined;
    throw error;
  }
}
