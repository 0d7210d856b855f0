/**
 * What the services know of virtual machines. Drivers stand behind these interfaces; nothing outside
 * of this folder knows QEMU, QMP, accelerators or templates.
 */
import type {
  AgentEvent,
  Channel,
  Hello,
  OperationName,
  Operations,
} from "../../protocol/index.js";

/** Makes and finds machines. */
export interface Hypervisor {
  /** How machines run on this host. Stable once it has resolved. */
  info(): Promise<HypervisorInfo>;
  /**
   * Takes a machine that is nobody's yet: out of the warm pool, or one that comes up while the caller
   * prepares what it is to be given.
   * @param furnishing the machine may have this already: its spec must be of that image and of a disk that was never
   *   used, in whose place another one may come. The agent then takes the `setup` of an ordinary container only.
   * @throws {Unavailable} the hypervisor cannot be started, with its own words
   * @throws {InvalidParameter} the host cannot give what is asked for
   */
  prepare(size: MachineSize, furnishing?: Furnishing): Promise<BlankMachine>;
  /**
   * `prepare` is likely to be called like that in a moment: the machine that it would take out of the warm pool goes on
   * already, and its guest's code is where the processor finds it soon. It stands still again when nobody comes.
   */
  anticipate(size: MachineSize, wish?: Disks): void;
  /**
   * Brings a saved machine back, with NICs of the same kinds and without its disks. It stands still until
   * `start` has given it these, as they were when it was saved. Its agent is the one of then, so that its
   * clock is late and its random numbers may have been used before: the operation `wake` is for that.
   * @throws {Unavailable} the hypervisor cannot be started, or cannot take the state, with its own words
   * @throws {Conflict} it was saved on another hypervisor
   */
  prepareSaved(saved: SavedMachine): Promise<BlankMachine>;
  /** How many machines stand ready. */
  readonly warmMachines: number;
  /** How many machines stand still for others to be forked from them. */
  readonly zygotes: number;
  /** Ends the machines that are nobody's; those of containers stay. */
  close(): Promise<void>;
  /**
   * Finds the machine of an earlier daemon's record and proves that it is that machine.
   * @returns undefined when it no longer runs
   * @throws {Unavailable} it runs, but does not answer now
   */
  reattach(record: MachineRecord): Promise<Machine | undefined>;
  /** Ends the machine of an earlier daemon's record by force, whether it answers or not. Resolves when it is gone. */
  end(record: MachineRecord): Promise<void>;
  /**
   * Ends the machines in folders below `root` that none of the records is of: a daemon that was killed
   * before it could record what it had started leaves such a machine.
   * @returns how many it ended
   */
  endOrphans(root: string, known: MachineRecord[]): Promise<number>;
}

export interface HypervisorInfo {
  /** e.g. "qemu". */
  driver: string;
  version: string;
  accelerator: "kvm" | "tcg";
  /** One sentence: why this accelerator. */
  reason: string;
  kernel: string;
  agent: string;
  /** For `docker info`, e.g. that TCG is not a security boundary. */
  warnings: string[];
}

export interface MachineSize {
  /** What the guest has at least: sizes are rounded up to one of a few classes. */
  memoryBytes: number;
  vcpus: number;
  /** Name of another guest kernel than the daemon's. */
  kernel?: string;
}

/** A machine without an owner. Either `start` or `discard` is to be called, once. */
export interface BlankMachine {
  /**
   * The tap devices of its NICs, by their places (`Taps.createTap` made them); empty where the machine has
   * one NIC of user mode.
   */
  readonly taps: readonly string[];
  /**
   * Gives the machine its disks. Resolves when the guest's agent answers; see `Machine.settle`, too.
   * @throws {Unavailable} the hypervisor cannot be started, with its own words
   * @throws {InvalidParameter} a disk is not as the spec says
   */
  start(spec: MachineSpec): Promise<Machine>;
  /** Nobody needs it after all. */
  discard(): void;
}

/**
 * What a machine does once before it stands ready in the warm pool: a start with throw-away disks, so
 * that the code on the way of a start is warm. Nothing of it is left in the machine.
 */
export interface Rehearsal {
  /** Makes the disks. @param directory of the machine, which goes when it ends */
  disks(directory: string): Promise<Disk[]>;
  /** Runs a container to its end. */
  run(agent: AgentClient): Promise<void>;
  /**
   * Makes a blank writable disk that may become a container's.
   * @returns its path
   */
  blank(bytes: number): Promise<string>;
  /**
   * Copies such a disk, which no machine writes to now.
   * @returns the copy's path
   */
  copyOf(blank: string): Promise<string>;
  /** Mounts both disks for a container that is to come. */
  furnish(agent: AgentClient, furnishing: Furnishing): Promise<void>;
  /** Gives a furnished machine, which will be one container's, entropy of its own, and has it load its program. */
  load(agent: AgentClient, furnishing: Furnishing): Promise<void>;
}

/** The disks of an ordinary container. */
export interface Disks {
  image: Disk;
  /** Size of its writable disk, in bytes. */
  blankBytes: number;
}

/** What can be known of a container's machine before the container is. */
export interface Furnishing extends Disks {
  /** What its program is called, and PATH; it is read ahead, and may be another in the end. */
  program: { name: string; path: string };
}

/** Where a machine's tap devices come from; see `NetworkService`. */
export interface Taps {
  /** @returns undefined where machines have no taps (user mode) */
  createTap(): Promise<string | undefined>;
  /** Takes back a tap that is on no network; does nothing to one that is. */
  discardTap(device: string): void;
}

export interface MachineSpec {
  /** The container's ID. */
  id: string;
  /** Where the driver keeps this machine's sockets and files, and nobody else anything: what is there goes. */
  directory: string;
  /** In the guest's order: the first one is /dev/vda. */
  disks: Disk[];
  /** Of a NIC of user mode. */
  forwards: Forward[];
}

/** A block device. Sizes and offsets are multiples of 512 bytes. */
export interface Disk {
  /** Joined one after the other into one device; a writable disk has exactly one. */
  parts: { path: string; bytes: number }[];
  readonly: boolean;
}

export type Nic =
  | { kind: "tap"; mac: string; device: string }
  | { kind: "user"; mac: string; forwards?: Forward[] };

/** A port of the host that QEMU's user-mode stack forwards to the guest. */
export interface Forward {
  protocol: "tcp" | "udp";
  /** An IPv4 address. */
  hostIp: string;
  hostPort: number;
  address: string;
  port: number;
}

/** What must be on disk to find a machine again. Plain JSON; its content is the driver's business. */
export interface MachineRecord {
  driver: string;
  [key: string]: unknown;
}

/** A machine that was saved: the file with its memory and devices, and what `Machine.save` said of it. */
export interface SavedMachine {
  file: string;
  record: MachineRecord;
}

/** From slow to fast: booted, restored from a template, forked from a machine, or taken from a pool of such. */
export type StartKind = "cold" | "restored" | "forked" | "warm";

export interface Machine {
  readonly record: MachineRecord;
  readonly agent: AgentClient;
  /**
   * Puts its disks where its spec says. To be called once by who wished for a furnished machine, before it is recorded
   * and when the guest has been told what it is to do, which can go without.
   */
  settle(): Promise<void>;
  /** Calls back with what holds the machine up for the time being, such as a full disk of the host. */
  onTrouble(listener: (trouble: string) => void): void;
  /** Resolves when the machine's process is gone, with why. */
  readonly exited: Promise<MachineExit>;
  /**
   * A Unix socket at which the machine takes one connection: from who serves the guest's shared folders,
   * by 9P2000.L. It ends with the machine.
   */
  readonly shareSocket: string;
  /**
   * Where the time of the start went: name and milliseconds, one after the other from the call of `start`
   * (what happened to the machine before it had an owner does not count) to the agent's hello.
   */
  readonly spans: { name: string; ms: number }[];
  /** Its guest has been given entropy, and no other one goes on from the same state. */
  readonly seeded: boolean;
  /** How it was started. */
  readonly startKind: StartKind;
  /** Why a faster way of starting it did not work, where one was tried. */
  readonly fallback: string | undefined;
  /** Stands still / goes on. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /**
   * Writes memory and devices to a new file; to be called while the machine stands still. It can go on
   * afterwards.
   * @returns what `Hypervisor.prepareSaved` is to be told beside the file
   * @throws {Unavailable} the hypervisor could not, or the file cannot be written
   * @throws {Conflict} the machine was started by a daemon that could not do this
   */
  save(file: string): Promise<MachineRecord>;
  /** What it takes of the host; undefined when it is gone. */
  cost(): Promise<MachineCost | undefined>;
  /**
   * Ends the process now; the caller has asked the agent to shut down when that matters.
   * @param because why, where it is not by order: the reason `exited` gives
   */
  kill(because?: string): Promise<void>;
  /** Tail of the guest kernel's console, for a diagnosis. Bounded; guest-written, hence not trusted. */
  console(): Promise<string>;
  /** The daemon goes away; the machine stays. */
  detach(): Promise<void>;
}

/** A machine's process as the host counts it. */
export interface MachineCost {
  pid: number;
  /** CPU time since its start, of the guest and of the emulation. */
  cpuNs: number;
  residentBytes: number;
  /** Of these the part that is shared with no other machine. */
  privateBytes: number;
  threads: number;
}

export interface MachineExit {
  /** e.g. "powered off", "guest panicked: …", "killed by signal 9". */
  reason: string;
  /** Whether it ended because we, or the guest by our order, ended it. */
  expected: boolean;
}

/**
 * The host's end of the channel to a guest's agent. Everything that arrives is written by a guest and
 * is checked: a frame that breaks the protocol closes the channel with a reason.
 */
export interface AgentClient {
  /** Resolves with what the agent said first; rejects when the machine or channel ends before. */
  readonly hello: Promise<Hello>;
  /**
   * @throws {AgentFailure} the agent refused or failed
   * @throws {Unavailable} the channel is gone
   */
  request<Op extends OperationName>(
    op: Op,
    args: Operations[Op]["args"],
  ): Promise<Operations[Op]["result"]>;
  /** @returns takes the listener away */
  onEvent(listener: (event: AgentEvent) => void): () => void;
  /**
   * Opens the host's side of an output stream, to be done before `spawn` (or right after a reattach, with
   * the offset up to which the stream was consumed before).
   */
  output(
    process: number,
    channel: typeof Channel.Stdout | typeof Channel.Stderr,
    sink: OutputSink,
    from?: number,
  ): void;
  /** The host's side of a process's stdin. */
  input(process: number, from?: number): InputStream;
  /** Resolves when the channel is closed for good, with the reason. */
  readonly closed: Promise<string>;
}

/**
 * Takes an output stream's bytes. A sink owns its pace: the agent sends at most WINDOW bytes beyond
 * what was acknowledged, and keeps (and after a reconnect sends again) what was not.
 */
export interface OutputSink {
  /** `end` is the stream's offset behind this chunk. Call `ack(offset)` when done with it. */
  data(chunk: Buffer, end: number, ack: (offset: number) => void): void;
  /** No more data will come. */
  eof(): void;
}

export interface InputStream {
  /** Resolves when the bytes are under way within the window: the caller's back-pressure. */
  write(chunk: Buffer): Promise<void>;
  /** Half-close: the process reads end-of-file. */
  end(): void;
}

/** The agent's refusal of a request; see AgentErrorCode for what `code` says. */
export { AgentFailure } from "./agent-failure.js";
export { DISK_SLOTS, NIC_SLOTS } from "./slots.js";
export { QemuHypervisor, type QemuOptions } from "./qemu/driver.js";
