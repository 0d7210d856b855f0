/**
 * Where a machine's process runs, and as whom. The launcher (jail/launcher.c) opens what QEMU needs, and
 * starts it as a user of its own in a room with nothing else in it; files that come later are handed over
 * by QMP. So there is no file that QEMU opens by its path but those of its room.
 */
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { join } from "node:path";
import { Unavailable } from "../../errors.js";
import type { NicBackend } from "./command-line.js";
import {
  Descriptor,
  type MachineSockets,
  tapDescriptor,
} from "./descriptors.js";
import { findProgram } from "./host-identity.js";
import { type GroupLimits, MachineGroups } from "./machine-groups.js";
import { ANSWER } from "./process.js";
import { openRoom, type Room } from "./room.js";
import type { MachineShape } from "./shape.js";

/** Sends bytes and open files over a Unix socket: jail/send.c. */
export type SendFiles = (
  socket: number,
  bytes: Buffer,
  files: number[],
) => number;

/** What `jail/build` makes. */
export interface JailPrograms {
  launcher: string;
  preload: string;
  send: string;
}

export interface Jail {
  launcher: string;
  /** Absent: QEMU runs as the daemon's user, among the host's files. */
  room?: Room;
  /** User and group of a machine's process are its process ID and this. */
  firstUid: number;
  groups?: MachineGroups | undefined;
}

export interface JailOptions {
  programs: JailPrograms;
  /** No user, root or control group of its own for any machine, even where the daemon is root. */
  unconfined: boolean;
  firstUid: number;
  /** The control group that the daemon's machines have theirs below, as in dockerd. */
  cgroupParent: string;
}

const NOT_ROOT =
  "WARNING: Machines run as the daemon's user: a user, a root and a control group of their own need a daemon that is root";
const BY_ORDER =
  "WARNING: Machines run as the daemon's user and see the host's files, as the configuration asks for: a hole in QEMU is a hole in the host";

/** Threads that QEMU has besides those of the virtual CPUs: 64 for files, and a few. */
const THREADS = 128;
/** What QEMU takes besides the guest's memory and translated code, at most, in MiB. */
const OVERHEAD_MIB = 256;

/**
 * Makes what machines are confined by, as far as the host allows.
 * @param files what the room is for
 * @throws {Unavailable} machines are to be confined, and cannot be
 */
export async function openJail(
  { programs, unconfined, firstUid }: JailOptions,
  groups: Groups,
  files: { root: string; binary: string; kernel: string; initramfs: string },
): Promise<{ jail: Jail; warnings: string[] }> {
  const { launcher, preload } = programs;
  if (process.geteuid?.() !== 0 || unconfined) {
    const warnings = [unconfined ? BY_ORDER : NOT_ROOT];
    return { jail: { launcher, firstUid }, warnings };
  }
  const binary = findProgram(files.binary);
  const room = await openRoom({ ...files, binary, preload });
  return {
    jail: { launcher, firstUid, room, groups: groups.groups },
    warnings: groups.missing === undefined ? [] : [groups.missing],
  };
}

export interface Groups {
  groups?: MachineGroups;
  /** A warning that says why there are none where there should be. */
  missing?: string;
}

/** The control groups of a daemon's machines, which have their folders below `machineRoot`. */
export async function openGroups(
  { unconfined, cgroupParent }: JailOptions,
  machineRoot: string,
): Promise<Groups> {
  if (process.geteuid?.() !== 0 || unconfined) return {};
  const own = createHash("sha256").update(machineRoot).digest("hex");
  try {
    const path = join(cgroupParent, own.slice(0, 12));
    return { groups: await MachineGroups.open(path) };
  } catch (error) {
    return {
      missing: `WARNING: Machines have no control group of their own: ${(error as Error).message}`,
    };
  }
}

/** @throws {Unavailable} it is not there, or not for this node */
export function loadSender(path: string): SendFiles {
  try {
    const addon = createRequire(import.meta.url)(path) as { send: SendFiles };
    return addon.send;
  } catch (error) {
    throw new Unavailable(
      `${path} cannot be loaded: ${(error as Error).message.split("\n")[0]}`,
    );
  }
}

/** What a machine's process may take of the host. */
export function groupLimits(
  { memoryMiB, vcpus }: MachineShape,
  translationMiB: number,
): GroupLimits {
  const mib = memoryMiB + translationMiB + OVERHEAD_MIB;
  return { memoryBytes: mib * 1024 * 1024, tasks: vcpus + THREADS };
}

/** The launcher's arguments, up to those of QEMU. */
export function launcherArguments(
  { room, firstUid }: Jail,
  machine: {
    accelerator: "kvm" | "tcg";
    shape: MachineShape;
    nics: NicBackend[];
    sockets: MachineSockets;
    /** Descriptors that it inherits. */
    inherited: number[];
    /** Where it takes orders, if it is to be a zygote. */
    orders?: string | undefined;
  },
): string[] {
  const { accelerator, shape, nics, sockets, inherited, orders } = machine;
  return [
    ...inherited.flatMap((descriptor) => ["--keep", String(descriptor)]),
    ...ownFiles(sockets, nics),
    ...takesOrders(orders),
    ...(room
      ? [
          ...(accelerator === "kvm"
            ? ["--open", `${Descriptor.kvm}=/dev/kvm`]
            : []),
          ...["--room", room.directory],
          ...["--first-uid", String(firstUid)],
          ...["--processes", String(groupLimits(shape, 0).tasks)],
          // QEMU's user mode speaks for the guest there.
          ...(nics.some(({ kind }) => kind === "user")
            ? ["--host-network"]
            : []),
        ]
      : []),
    "--",
  ];
}

/** A disk that a copy of a zygote has in the place of the zygote's own, both by their paths. */
export interface OwnDisk {
  path: string;
  insteadOf: string;
}

/** The launcher's arguments to have a machine forked. */
export function forkArguments(machine: {
  /** Where the zygote takes orders. */
  origin: string;
  /** See `guestName`; as long as the zygote's. */
  name: string;
  uuid: string;
  sockets: MachineSockets;
  nics: NicBackend[];
  /** See `launcherArguments`. */
  orders?: string | undefined;
  disk?: OwnDisk | undefined;
}): string[] {
  const { origin, name, uuid, sockets, nics, orders, disk } = machine;
  return [
    ...["--keep", String(ANSWER), "--answer", String(ANSWER)],
    ...ownFiles(sockets, nics),
    ...takesOrders(orders),
    ...(disk ? ["--disk", disk.path, "--instead-of", disk.insteadOf] : []),
    ...["--fork-from", origin, "--name", `guest=${name}`, "--uuid", uuid],
  ];
}

function takesOrders(socket: string | undefined): string[] {
  if (socket === undefined) return [];
  const descriptor = String(Descriptor.orders);
  return ["--listen", `${descriptor}=${socket}`, "--zygote", descriptor];
}

/** What the launcher opens that no two machines have in common. */
function ownFiles(sockets: MachineSockets, nics: NicBackend[]): string[] {
  return [
    ...["--listen", `${Descriptor.qmp}=${sockets.qmp}`],
    ...["--listen", `${Descriptor.agent}=${sockets.agent}`],
    ...["--listen", `${Descriptor.share}=${sockets.share}`],
    ...nics.flatMap((nic, index) =>
      nic.kind === "tap"
        ? ["--tap", `${tapDescriptor(index)}=${nic.device}`]
        : [],
    ),
  ];
}
