/** The open files that a machine's process starts with, and those it is handed later. */
import { randomInt } from "node:crypto";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { InvalidParameter } from "../../errors.js";
import type { QmpClient } from "./qmp.js";

/** Their numbers in QEMU. jail/descriptors.c knows that of `kvm`. */
export const Descriptor = {
  /** A clone's: the state of its devices. */
  state: 3,
  /** The file that is, or is copied to be, the guest's memory. */
  memory: 4,
  kvm: 9,
  qmp: 10,
  agent: 11,
  share: 12,
  /** A zygote's: where it takes orders. The ones above and the taps are known to jail/order.h, too. */
  orders: 13,
  firstTap: 16,
} as const;

export function tapDescriptor(slot: number): number {
  return Descriptor.firstTap + slot;
}

/** Where a machine's process listens. */
export interface MachineSockets {
  qmp: string;
  agent: string;
  /** Where who serves the guest's shared folders connects to. */
  share: string;
}

/** Where a zygote takes orders to fork. */
export function ordersSocket(directory: string): string {
  return join(directory, "fork.sock");
}

/** The longest path of a Unix socket: sun_path is 108 bytes with its final zero. */
const MAX_SOCKET_PATH = 107;

/** @throws {InvalidParameter} the directory's name is too long for a socket in it */
export function machineSockets(directory: string): MachineSockets {
  const sockets = {
    qmp: join(directory, "qmp.sock"),
    agent: join(directory, "agent.sock"),
    share: join(directory, "share.sock"),
  };
  const length = Buffer.byteLength(sockets.agent);
  if (length > MAX_SOCKET_PATH) {
    throw new InvalidParameter(
      `the path ${sockets.agent} is ${length} bytes long, a socket's can have ${MAX_SOCKET_PATH}: choose a shorter directory for the daemon's runtime files`,
    );
  }
  return sockets;
}

/**
 * Opens a file and hands it to QEMU, which can do with it what it was opened for, whoever QEMU runs as.
 * @returns the name by which QEMU opens it
 * @throws {QmpError} QEMU refused it
 * @throws the system's error
 */
export async function handFile(
  qmp: QmpClient,
  path: string,
  readonly: boolean,
): Promise<string> {
  const file = await open(path, readonly ? "r" : "r+");
  try {
    // QEMU reads an int in the name.
    const set = randomInt(2 ** 31);
    await qmp.executeWith(file.fd, "add-fd", { "fdset-id": set });
    return `/dev/fdset/${set}`;
  } finally {
    await file.close();
  }
}

const fdSets = z.array(z.object({ "fdset-id": z.int() }));

/** Has QEMU close all files it was handed, but for those in use. */
export async function takeFilesBack(qmp: QmpClient): Promise<void> {
  const sets = fdSets.parse(await qmp.execute("query-fdsets"));
  await Promise.all(sets.map((set) => qmp.execute("remove-fd", set)));
}
