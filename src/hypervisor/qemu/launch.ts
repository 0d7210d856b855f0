import { randomUUID } from "node:crypto";
import { open } from "node:fs/promises";
import { Unavailable } from "../../errors.js";
import { SocketAgentClient } from "../agent/client.js";
import type { MachineRecord } from "../index.js";
import {
  commandLine,
  type GuestMemory,
  guestName,
  isIncoming,
  isOwn,
  type NicBackend,
  TRANSLATION_CACHE_MIB,
} from "./command-line.js";
import { Descriptor, machineSockets } from "./descriptors.js";
import { loadState } from "./device-state.js";
import {
  forkArguments,
  groupLimits,
  type Jail,
  launcherArguments,
  type OwnDisk,
  type SendFiles,
} from "./jail.js";
import { QemuMachine } from "./machine.js";
import {
  forkProcess,
  lastWords,
  type QemuProcess,
  startProcess,
} from "./process.js";
import { QmpClient } from "./qmp.js";
import type { QemuRecord } from "./record.js";
import type { MachineShape } from "./shape.js";
import { StartSpans } from "./start-spans.js";
import { connectSocket, connectWhenThere } from "./socket.js";

/** QEMU is set up in tens of milliseconds; on a host that swaps it may take long. */
const GREETING_MS = 20_000;
/** A guest that has not said hello by then never will, in ms. */
const BOOT_MS = 60_000;

/** So many copies of a zygote may be on the way to their own control groups. */
const COPIES_AT_ONCE = 100;

/** How the message of a failed launch begins; QEMU's own words follow. */
export const LAUNCH_FAILED = "the virtual machine could not be started: ";

/** What all machines of this host have in common. */
export interface Platform {
  binary: string;
  kernel: string;
  kernelParameters?: string;
  initramfs: string;
  accelerator: "kvm" | "tcg";
  tscKhz: number | undefined;
  jail: Jail;
  sendFiles: SendFiles;
}

/** A machine to be started, whose slots are empty. */
export interface LaunchOptions {
  name: string;
  /** Exists, and is this machine's only. */
  directory: string;
  shape: MachineShape;
  nics: NicBackend[];
  memory: GuestMemory;
  /** Of a clone: the descriptor of the file with its devices' state. */
  state?: number;
  /** Of a clone: others are to be forked from it, by orders at this socket. */
  orders?: string;
  /** Of a clone: it is not restored, but forked from the zygote that takes orders at this socket. */
  origin?: string;
  /** Of a machine that is forked from one with a writable disk. */
  disk?: OwnDisk | undefined;
}

/**
 * Starts a machine's process and connects to it. A clone stands still when it has been restored; any
 * other one boots.
 * @param signal ends the process by SIGKILL, now or later
 * @throws {InvalidParameter} the directory's path is too long
 * @throws {Unavailable} QEMU cannot be started or cannot take the state, with its own words
 */
export async function launch(
  platform: Platform,
  options: LaunchOptions,
  signal?: AbortSignal,
): Promise<QemuMachine> {
  const spans = new StartSpans();
  const { name, directory, nics, memory } = options;
  const sockets = machineSockets(directory);
  const uuid = randomUUID();
  const group = await joinableGroup(platform, uuid, options);
  const connected = new PromiseOfEnd();
  const process = await start(platform, options, uuid, connected).catch(
    async (error: unknown) => {
      await group.leave();
      throw error;
    },
  );
  void process.ended.then(() => group.leave());
  spans.done("process");
  const kill = () => void process.kill();
  signal?.addEventListener("abort", kill);
  if (signal?.aborted) kill();
  const failed = new AbortController();
  void process.ended.then(() => failed.abort());
  try {
    const joined = group.join(process.identity.pid);
    joined.catch(() => undefined);
    const control = await connectWhenThere(sockets.qmp, failed.signal);
    if (!control) throw new Unavailable("QEMU ended at once");
    const qmp = await QmpClient.open(control, GREETING_MS, platform.sendFiles);
    connected.follow(qmp.closed);
    await joined;
    // Before a state comes: the guest then finds its port as it left it.
    const port = await connectSocket(sockets.agent);
    const restored = isIncoming(memory);
    const saved = memory.kind === "saved";
    if (restored) spans.done("qemu");
    if (restored && options.origin === undefined) {
      await loadState(qmp, saved ? "devices and memory" : "devices");
      spans.done("restore");
    }
    const agent = new SocketAgentClient(
      port,
      saved ? "running" : restored ? "restored" : "fresh",
    );
    const late = setTimeout(
      () => agent.close(`the guest did not come up in ${BOOT_MS / 1000} s`),
      BOOT_MS,
    ).unref();
    void agent.closed.then(() => clearTimeout(late));
    agent.hello.then(
      (hello) => {
        clearTimeout(late);
        if (restored) spans.done("agent");
        else spans.hello(hello);
      },
      () => undefined,
    );
    const record: MachineRecord = {
      driver: "qemu",
      id: "",
      name,
      uuid,
      directory,
      taps: nics.flatMap((nic) => (nic.kind === "tap" ? [nic.device] : [])),
      shape: options.shape,
      memory: isOwn(memory) ? "own" : "clone",
      ...process.identity,
    } satisfies QemuRecord;
    return new QemuMachine({
      record,
      directory,
      process,
      qmp,
      agent,
      spans: spans.list,
    });
  } catch (error) {
    const early = failed.signal.aborted;
    const killed = process.kill();
    connected.follow(killed);
    await killed;
    const words = await lastWords(directory);
    throw new Unavailable(
      `${LAUNCH_FAILED}${
        words || (early ? "QEMU ended at once" : (error as Error).message)
      }`,
    );
  }
}

/** Starts the process; what is opened for it is closed here when it has it. */
async function start(
  platform: Platform,
  options: LaunchOptions,
  uuid: string,
  connected: PromiseOfEnd,
): Promise<QemuProcess> {
  const { jail } = platform;
  const { name, directory, memory, state, nics, orders, origin, disk } =
    options;
  const room = jail.room ?? platform;
  const sockets = machineSockets(directory);
  if (origin !== undefined) {
    const own = { origin, name: guestName(name, directory), uuid };
    return forkProcess(
      jail.launcher,
      forkArguments({ ...own, sockets, nics, orders, disk }),
      directory,
      connected.promise,
    );
  }
  const file =
    "path" in memory
      ? await open(memory.path, memory.kind === "clone" ? "r" : "wx+", 0o600)
      : undefined;
  try {
    const inherited = [state, file?.fd];
    const args = [
      ...launcherArguments(jail, {
        ...platform,
        ...options,
        sockets,
        orders,
        inherited: [Descriptor.state, Descriptor.memory].filter(
          (_, index) => inherited[index] !== undefined,
        ),
      }),
      room.binary,
      ...commandLine({
        ...platform,
        ...options,
        name: guestName(name, directory),
        kernel: room.kernel,
        initramfs: room.initramfs,
        uuid,
      }),
    ];
    return await startProcess(jail.launcher, args, directory, inherited);
  } finally {
    await file?.close();
  }
}

/** The end of a connection that is yet to be made. */
class PromiseOfEnd {
  readonly promise: Promise<void>;
  #resolve!: () => void;

  constructor() {
    this.promise = new Promise((resolve) => (this.#resolve = resolve));
  }

  follow(end: Promise<void>): void {
    void end.then(this.#resolve);
  }
}

/** The control group of one process; where there are none, nothing is done. */
async function joinableGroup(
  { jail: { groups }, accelerator }: Platform,
  name: string,
  { shape, orders }: LaunchOptions,
): Promise<{ join(pid: number): Promise<void>; leave(): Promise<void> }> {
  const translation = accelerator === "tcg" ? TRANSLATION_CACHE_MIB : 0;
  const limits = groupLimits(shape, translation);
  // A zygote's copies begin in its group.
  if (orders !== undefined) limits.tasks *= COPIES_AT_ONCE;
  await groups?.create(name, limits);
  return {
    join: async (pid) => groups?.join(name, pid),
    leave: async () => groups?.remove(name),
  };
}
