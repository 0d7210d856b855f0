/**
 * The messages of the host–agent channel. Requests are answered in any order, matched by `id`; the
 * agent begins them in the order they came, so `setup` and `spawn` may be sent in one go.
 *
 * Names of users, paths and environment are strings of UTF-8.
 */

/** Version of this protocol; an agent of another version is not used. */
export const PROTOCOL_VERSION = 1;
/** Name of the virtio-serial port the channel runs over. */
export const PORT_NAME = "org.hull.agent.0";
/** Name of the virtio-serial port at which the host serves shared folders, by 9P2000.L. */
export const SHARE_PORT_NAME = "org.hull.share.0";
/** The process number of the container's own process. */
export const INIT_PROCESS = 1;

/** A request as it travels. `op` names a key of {@link Operations}. */
export type Request = {
  [Op in OperationName]: { id: number; op: Op; args: Operations[Op]["args"] };
}[OperationName];

/** The answer to the request of the same `id`. */
export type Response =
  | { id: number; ok: true; result: unknown }
  | { id: number; ok: false; error: AgentError };

/** Why an operation failed. */
export interface AgentError {
  code: AgentErrorCode;
  message: string;
  /** Name of the errno where a system call failed, e.g. "ENOENT". */
  errno?: string;
}

/**
 * - `not-found`: no such process;
 * - `executable-not-found`: argv[0] is not there (Docker's 127);
 * - `executable-not-runnable`: it is there and cannot be executed (Docker's 126);
 * - `no-such-user`: user or group not in the image's passwd or group file;
 * - `invalid`: the request makes no sense now;
 * - `system`: a system call failed.
 */
export type AgentErrorCode =
  | "not-found"
  | "executable-not-found"
  | "executable-not-runnable"
  | "no-such-user"
  | "invalid"
  | "system";

/** Each operation's arguments and result. */
export interface Operations {
  /**
   * Answers at once: the channel and the agent are alive. Also what `hello` said, afresh. The first answer
   * comes when the machine has what every container needs: a template is saved after it.
   */
  hello: { args: Record<string, never>; result: Hello };
  /** Makes the machine this container's: clock, entropy, names, network, root. Once, but for `reset`. */
  setup: { args: Setup; result: SetupResult };
  /**
   * Undoes a rehearsal: a `setup` and processes that were there only so that the guest has done it once. The
   * machine is as it was before `setup`, its disks are free, and nothing of them is left in memory: the host may
   * put others into their slots, and `setup` may come again. What a later container can tell of it is that the
   * machine's own counters (CPU time, disk reads, forks) are higher, and the kernel's log, where it may read that.
   *
   * The host sends it only to a machine that has never been a container's, and must reckon with the next
   * container's seeing what the rehearsal left where nothing can be undone. So in a rehearsal
   * - no program runs but the host's own; none is privileged or waits for anything, and all are released;
   * - there are no shares, no sysctls, and NICs lead nowhere;
   * - `hello` is not asked, since it would make up the boot ID.
   *
   * Refused (`invalid`) when nothing was set up, or a process was not released. After any other error
   * the machine is of no use.
   */
  reset: { args: Record<string, never>; result: Record<string, never> };
  /**
   * Does ahead what `setup` would do for an ordinary container of the image in that slot, on a blank writable disk:
   * its root is mounted, with what is always in it, and a process that is to be its first one is in its namespaces and
   * waits. `setup` and `spawn` find them there. Refused (`invalid`) once a machine was
   * set up, and so is then a `setup` of a container that is not ordinary (privileged, with mounts of its own or
   * another /dev/shm) or has another root. After any error the machine is of no use.
   *
   * What a container can tell: its root folder and its first process are older than it.
   */
  furnish: { args: Furnish; result: Record<string, never> };
  /**
   * Executes a program of the image that a machine was furnished with, in a process that is thrown away: it is
   * killed at its first system call that is not of a loader or of a C library's start, or after 400 ms. It sees the
   * image's files, read-only, and can change nothing outside of itself; it is gone when the answer comes. Refused
   * (`invalid`) where the machine is not furnished, or was set up. After any other error it is as before.
   *
   * What a container can tell: this program's start finds memory warm, and the machine has run it.
   */
  load: { args: Load; result: LoadResult };
  /**
   * Does what `setup` will do to the first NIC, with an address of nobody's, and undoes it: a processor has the code of
   * it at hand then, for a moment. Refused (`invalid`) once the machine was set up. After any other error it is of no use.
   */
  rouse: { args: Record<string, never>; result: Record<string, never> };
  /**
   * Adds entropy ahead of `setup`, which can then do without. For a machine of which there will be no copies; refused
   * (`invalid`) once it was set up.
   */
  seed: { args: { entropy: string }; result: Record<string, never> };
  /**
   * The machine was saved and has been brought back: it may be much later, and another machine may go on
   * from the same state. Sets the clock and adds entropy.
   */
  wake: {
    args: { time: number; entropy: string };
    result: Record<string, never>;
  };
  /** Starts a process. Answered when it was executed, or with why it could not be. */
  spawn: { args: Spawn; result: { pid: number } };
  /** Sends a signal to a process, or with `all` to every process of the container. */
  signal: {
    args: { process: number; signal: number; all?: boolean };
    result: Record<string, never>;
  };
  /** Sets a terminal's size in characters. */
  resize: {
    args: { process: number; rows: number; columns: number };
    result: Record<string, never>;
  };
  /** Forgets an ended process and its exit status; its streams must be acknowledged to their ends. */
  release: { args: { process: number }; result: Record<string, never> };
  /** The container's processes, as `ps` would list them (for `docker top`). */
  processes: {
    args: Record<string, never>;
    result: { processes: ProcessInfo[] };
  };
  /** Starts work on the container's files; answered when it has begun. */
  files: { args: FileWork; result: FileWorkBegun };
  /** Stops or continues all of the container's processes, so that its files stand still. */
  freeze: { args: { frozen: boolean }; result: Record<string, never> };
  /** Puts NICs on and off networks while the container runs. */
  network: { args: NetworkChange; result: Record<string, never> };
  /** What the container takes of the machine, now and since its start. */
  usage: { args: Record<string, never>; result: Usage };
  /** Changes limits of the running container; those that are not given stay. */
  limit: { args: { limits: Limits }; result: Record<string, never> };
  /** Ends what runs, flushes and unmounts everything. After the answer the VM may be powered off. */
  shutdown: { args: Record<string, never>; result: Record<string, never> };
}
export type OperationName = keyof Operations;

/** What the agent tells of itself: on boot as an event, and in answer to `hello`. */
export interface Hello {
  protocol: number;
  /** Agent version and build. */
  version: string;
  /** Kernel release of the guest, e.g. "6.12.43". */
  kernel: string;
  /** The guest's boot ID: another one means another boot. "" before `setup`. */
  bootId: string;
  /** Milliseconds since the guest's kernel started. */
  uptimeMs: number;
  /** The agent's memory and how long it took from its start to being ready, for the benchmark. */
  agent?: { residentBytes: number; readyMs: number };
  /** Set by `setup`: true once the machine belongs to a container. */
  ready: boolean;
  /** Every process not released yet. */
  processes: ProcessState[];
}

/** A process as the agent knows it. */
export interface ProcessState {
  process: number;
  pid: number;
  exit?: ProcessExit;
  /** Per output stream (a process with a terminal has stdout only): bytes the agent has read from the process so far, and whether it ended. */
  stdout: { produced: number; ended: boolean };
  stderr: { produced: number; ended: boolean };
  /** Bytes of stdin the agent has received. */
  stdinReceived: number;
}

/** How a process ended. */
export interface ProcessExit {
  /** 0–255; 128 + signal when a signal ended it. */
  code: number;
  /** The signal that ended it, or 0. */
  signal: number;
  /** The container's memory limit (or the machine's) made the kernel kill a process. */
  oomKilled: boolean;
  /** Time of death in ms since the epoch, by the guest's clock. */
  at: number;
}

/** What the agent says unasked. */
export type AgentEvent =
  | { event: "hello"; hello: Hello }
  | { event: "exit"; process: number; exit: ProcessExit }
  | { event: "oom" }
  | { event: "log"; level: "info" | "warn" | "error"; message: string };

/** A block device by its place: 0 is the first disk of the VM (`/dev/vda`). */
export type DiskIndex = number;

/**
 * Everything that makes a fresh (or restored) machine this container's. What is not there is as in SETUP_DEFAULTS
 * (defaults.ts).
 */
export interface Setup {
  /** Milliseconds since the epoch. */
  time: number;
  /** At least 64 bytes of host entropy, base64. To be left out after `seed` only. */
  entropy?: string;
  hostname: string;
  domainname?: string;
  /** 32 hex digits, for an image whose /etc/machine-id is empty; "" keeps it as it is. */
  machineId?: string;
  network: NetworkSetup;
  rootfs?: RootfsSetup;
  /** tmpfs and volume mounts inside the container, in order. */
  mounts?: MountSetup[];
  /** Files the engine writes into the container before it starts (/etc/hosts, …). */
  files: FileSetup[];
  limits?: Limits;
  /** Kernel parameters of the container's namespaces, e.g. "net.core.somaxconn". */
  sysctls?: Record<string, string>;
  /** Size of /dev/shm in bytes. */
  shmSize?: number;
  /** True for --privileged: /sys and cgroups writable. What is masked is said apart from it. */
  privileged?: boolean;
  /** Paths hidden from / read-only for the container's processes. */
  maskedPaths?: string[];
  readonlyPaths?: string[];
}

/**
 * What is known of a container before it is known which one it is. It is taken to be of the defaults; one whose
 * masked or read-only paths or capabilities are others gets its first process later.
 */
export interface Furnish {
  /** Paths of the engine's files; those of `setup` begin with these, in the same order. */
  paths: string[];
  /** What the container is likely to run: it is looked up, and its begin read ahead. No other serves it worse. */
  program: { name: string; /** PATH */ path: string };
}

export interface Load {
  /** As in {@link Furnish}; its name is its only argument, and PATH its environment. */
  program: Furnish["program"];
}

/** How the process ended: with 127 where nothing was executed, by SIGSYS at its first call with an effect. */
export interface LoadResult {
  code: number;
  signal: number;
}

export interface NetworkSetup {
  interfaces: InterfaceSetup[];
}

/** One NIC, by its place among the VM's NICs (0 is the guest's first Ethernet device). */
export interface InterfaceSetup {
  index: number;
  /** Name inside the container, e.g. "eth0". */
  name: string;
  mac: string;
  mtu: number;
  /** Addresses with prefix length, e.g. "172.17.0.2/16", "fd00::2/64". */
  addresses: string[];
  /** Default gateways (IPv4 and IPv6), none for an internal network. */
  gateways: string[];
}

/** What becomes of a running container's network. */
export interface NetworkChange {
  /** NICs that come onto a network; their gateways are among the routes. */
  add: InterfaceSetup[];
  /** NICs that are on no network any more, with what they had. */
  remove: { index: number; addresses: string[] }[];
  /** The default gateways from now on, each with the NIC it is reached by. */
  routes: { index: number; gateway: string }[];
  /** The engine's files that say something else now. A file that the container has changed stays. */
  files: FileSetup[];
}

/** The root: an EROFS image under an overlay whose upper folder is on a writable ext4 disk. */
export interface RootfsSetup {
  image: DiskIndex;
  writable: DiskIndex;
  /** --read-only: the overlay is mounted read-only. */
  readonly: boolean;
}

export type MountSetup =
  | { type: "tmpfs"; target: string; options: string[] }
  | { type: "disk"; disk: DiskIndex; target: string; readonly: boolean }
  | ShareSetup;

/** A file or folder of the host, served at the port {@link SHARE_PORT_NAME}. */
export interface ShareSetup {
  type: "share";
  /** Its place: in the served root they are named "0", "1", and so on. */
  share: number;
  target: string;
  readonly: boolean;
  /** While it is empty, it gets what the image has at the target, and that folder's owner and mode. */
  populate: boolean;
}

export interface FileSetup {
  path: string;
  /** Text of the file. */
  content: string;
  /** FILE_MODE where it is not there. */
  mode?: number;
}

/** The container's cgroup; absent means no limit but the machine's, and so does a negative number. */
export interface Limits {
  memoryBytes?: number;
  memorySwapBytes?: number;
  /** What is not taken from it while other memory can be. */
  memoryLowBytes?: number;
  /** CPU time a second, in microseconds a 100 ms period: cpu.max's quota. */
  cpuQuotaUs?: number;
  cpuPeriodUs?: number;
  cpuWeight?: number;
  pids?: number;
}

/** What `setup` found out about the machine, with how long its parts took (for the start trace). */
export interface SetupResult {
  /** Microseconds each step took, by its name, in the order of their doing. */
  timings: Record<string, number>;
}

/** A process to start inside the container. What is not there is as in SPAWN_DEFAULTS (defaults.ts). */
export interface Spawn {
  /** The process number; INIT_PROCESS is the container's own and makes its PID namespace. */
  process: number;
  /** argv[0] is looked up in the environment's PATH when it has no slash. */
  args: string[];
  /** "KEY=value", each key once. The agent adds HOME of the user where it is missing, as Docker does. */
  env: string[];
  cwd?: string;
  /** As in the image config: "", "user", "uid", "user:group", "uid:gid". */
  user?: string;
  /** Supplementary groups by name or number (--group-add). */
  groups?: string[];
  tty?: { rows: number; columns: number };
  /** Whether the process gets a stdin stream; /dev/null otherwise. */
  stdin?: boolean;
  /** Capability names without "CAP_", e.g. "NET_BIND_SERVICE". */
  capabilities?: string[];
  noNewPrivileges?: boolean;
  rlimits?: { name: string; soft: number; hard: number }[];
  oomScoreAdj?: number;
  /** Of INIT_PROCESS: it runs below an init that passes signals on and reaps (--init). */
  init?: boolean;
}

/** The container's use of the machine, from its cgroup; counters begin with its start. */
export interface Usage {
  machine: {
    /** CPUs it has. */
    cpus: number;
    memoryBytes: number;
    /** Time of all its CPUs since boot, idle or not, in µs. */
    cpuUs: number;
  };
  cpu: {
    userUs: number;
    systemUs: number;
    totalUs: number;
    periods: number;
    throttledPeriods: number;
    throttledUs: number;
  };
  memory: {
    bytes: number;
    peakBytes: number;
    /** -1 is none. */
    limitBytes: number;
    /** The lines of memory.stat. */
    stat: Record<string, number>;
  };
  pids: { current: number; /** -1 is none. */ limit: number };
  devices: {
    major: number;
    minor: number;
    readBytes: number;
    writtenBytes: number;
    reads: number;
    writes: number;
  }[];
  interfaces: {
    name: string;
    rx: TrafficCounters;
    tx: TrafficCounters;
  }[];
  /** What it has written to its own disk and not removed. */
  diskBytes: number;
}

export interface TrafficCounters {
  bytes: number;
  packets: number;
  errors: number;
  dropped: number;
}

/**
 * Work on the container's files. It has a process's number, streams and end: an archive (uncompressed
 * tar) comes on stdout or goes to stdin, what went wrong comes on stderr, the exit code is 0, or 2 for a bad archive,
 * or 1. It may be ended by a signal. A new host connection ends it, and it is not in `hello`. Works also when the
 * container does not run, once the machine was set up.
 */
export interface FileWork {
  process: number;
  task: FileTask;
}

/**
 * - `stat`: what is at a path;
 * - `archive`: a path and what is below it, as the Engine archives it;
 * - `extract`: an archive into a folder that is there. `owner` is whose the files become (a user as in
 *   {@link Spawn}), "" to keep the archive's; with `keepKinds` no file takes a folder's place;
 * - `export`: the whole root, without mounts;
 * - `changes`: what differs from the image: for each path its kind (0 modified, 1 added, 2 deleted) as a
 *   digit, the path, and a zero byte;
 * - `layer`: the same as an image layer's archive.
 */
export type FileTask =
  | { do: "stat"; path: string }
  | { do: "archive"; path: string }
  | { do: "extract"; path: string; owner: string; keepKinds: boolean }
  | { do: "export" }
  | { do: "changes" }
  | { do: "layer" };

export interface FileWorkBegun {
  pid: number;
  /** For `stat` and `archive`. */
  stat?: PathStat;
}

export interface PathStat {
  name: string;
  size: number;
  /** st_mode of Linux. */
  mode: number;
  seconds: number;
  nanoseconds: number;
  /** Where a symbolic link leads in the end; "" for anything else. */
  linkTarget: string;
}

export interface ProcessInfo {
  /** PID as the container's own namespace sees it. */
  pid: number;
  ppid: number;
  user: string;
  /** Clock ticks of CPU time, start time in ms since the epoch, resident bytes, tty name or "?". */
  cpuMs: number;
  startedAt: number;
  rss: number;
  tty: string;
  command: string;
}
