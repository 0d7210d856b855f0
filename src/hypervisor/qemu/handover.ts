/** Gives a machine whose slots are empty what it is to be: its disks, its ports, its place. */
import { renameSync, rmSync, statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { InvalidParameter, Unavailable } from "../../errors.js";
import type { Disk, Forward, MachineSpec } from "../index.js";
import { DISK_SLOTS } from "../slots.js";
import { diskDevice, emptyNode } from "./command-line.js";
import { handFile } from "./descriptors.js";
import { giver } from "./furnishing.js";
import type { QemuMachine } from "./machine.js";
import type { QmpClient } from "./qmp.js";
import { vmdkDescriptor } from "./vmdk.js";

/** @throws {InvalidParameter} more disks than a machine has room for, or in the wrong slot */
export function checkSlots({ disks }: MachineSpec): void {
  if (disks.length > DISK_SLOTS) {
    throw new InvalidParameter(
      `a machine has room for ${DISK_SLOTS} disks, not for ${disks.length}`,
    );
  }
  disks.forEach(({ readonly, parts }, slot) => {
    if (readonly !== (slot === 0)) {
      throw new InvalidParameter(
        `disk ${slot} of a machine is ${slot === 0 ? "read-only" : "writable"}`,
      );
    }
    if (parts.length === 0 || (!readonly && parts.length > 1)) {
      throw new InvalidParameter(
        `disk ${slot} of a machine has ${parts.length} parts`,
      );
    }
  });
}

/**
 * Puts files behind the machine's disks, and moves its folder to the spec's one.
 * @throws {QmpError} QEMU cannot use one, in its words
 */
export async function handOver(
  machine: QemuMachine,
  spec: MachineSpec,
): Promise<void> {
  moveFolder(machine.directory, spec.directory);
  machine.become(spec.id, spec.directory);
  const { qmp, furnished } = machine;
  machine.furnished = undefined;
  if (furnished) machine.settle = giver(furnished, spec);
  const disks = furnished ? [] : spec.disks;
  await Promise.all([
    ...disks.map((disk, slot) => insertDisk(qmp, disk, slot, spec.directory)),
    ...spec.forwards.map((rule) => forward(qmp, rule)),
  ]);
}

/** At once: folders of machines are where runtime files are, in memory as a rule. */
function moveFolder(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch {
    // An earlier machine left something.
    rmSync(to, { recursive: true, force: true });
    renameSync(from, to);
  }
}

/**
 * At once: the kernel has it at hand of files that were made or used a moment ago.
 * @throws {InvalidParameter} a disk's file is not there, or shorter than it should be
 */
export function checkFiles({ disks }: MachineSpec): void {
  disks.forEach(({ parts }, slot) => {
    for (const { path, bytes } of parts) {
      const size = sizeOf(path, slot);
      if (size < bytes) {
        throw new InvalidParameter(
          `disk ${slot} of a machine cannot be used: ${path} has ${size} bytes instead of ${bytes}`,
        );
      }
    }
  });
}

function sizeOf(path: string, slot: number): number {
  try {
    return statSync(path).size;
  } catch (error) {
    throw new InvalidParameter(
      `disk ${slot} of a machine cannot be used: ${(error as Error).message}`,
    );
  }
}

/** @param id of the block nodes: another one than those that may be in the slot */
export async function insertDisk(
  qmp: QmpClient,
  disk: Disk,
  slot: number,
  directory: string,
  id = `disk${slot}`,
): Promise<void> {
  const { readonly } = disk;
  const parts = await Promise.all(
    disk.parts.map(async ({ path, bytes }) => ({
      path: await handFile(qmp, path, readonly),
      bytes,
    })),
  );
  let filename = parts[0]?.path ?? "";
  if (parts.length > 1) {
    const descriptor = join(directory, `${id}.vmdk`);
    await writeFile(descriptor, vmdkDescriptor(parts), { mode: 0o600 });
    filename = await handFile(qmp, descriptor, true);
  }
  const driver = parts.length > 1 ? "vmdk" : "raw";
  // In one go: QEMU does them in order.
  await Promise.all([
    addNode(qmp, driver, filename, readonly, id),
    insertNode(qmp, id, slot),
  ]);
}

/** Opens a file as a block node. */
export async function addNode(
  qmp: QmpClient,
  driver: "vmdk" | "raw",
  filename: string,
  readonly: boolean,
  id: string,
): Promise<void> {
  const common = {
    "read-only": readonly,
    ...(readonly ? {} : { discard: "unmap" }),
  };
  await qmp.execute("blockdev-add", {
    driver,
    "node-name": id,
    file: { driver: "file", filename, aio: "threads", ...common },
    ...common,
  });
}

/** Puts a block node into a slot. */
export async function insertNode(
  qmp: QmpClient,
  id: string,
  slot: number,
): Promise<void> {
  await qmp.execute("qom-set", {
    path: diskDevice(slot),
    property: "drive",
    value: id,
  });
}

/** Takes a disk away that `insertDisk` put into a slot by that ID; the guest must not be using it. */
export async function ejectDisk(
  qmp: QmpClient,
  slot: number,
  id: string,
): Promise<void> {
  await Promise.all([
    insertNode(qmp, emptyNode(slot), slot),
    qmp.execute("blockdev-del", { "node-name": id }),
  ]);
}

/** There is no QMP command for it; the human monitor's answers with words when it fails. */
async function forward(qmp: QmpClient, rule: Forward): Promise<void> {
  const { protocol, hostIp, hostPort, address, port } = rule;
  const command = `hostfwd_add net0 ${protocol}:${hostIp}:${hostPort}-${address}:${port}`;
  const words = await qmp.execute("human-monitor-command", {
    "command-line": command,
  });
  if (typeof words === "string" && words.trim() !== "") {
    throw new Unavailable(
      `cannot forward the port ${hostPort}/${protocol}: ${words.trim()}`,
    );
  }
}
