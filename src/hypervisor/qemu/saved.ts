/**
 * Brings saved machines back: each stands still where the other did until its disks are in its slots.
 */
import { open } from "node:fs/promises";
import { Conflict, SystemError } from "../../errors.js";
import type { HypervisorInfo, SavedMachine } from "../index.js";
import type { Give } from "./blank.js";
import { answers, start } from "./bring-up.js";
import type { NicBackend } from "./command-line.js";
import { handOver } from "./handover.js";
import { launch, type Platform } from "./launch.js";
import type { QemuMachine } from "./machine.js";
import { type SavedRecord, savedShape } from "./save.js";
import type { MachineShape } from "./shape.js";

/** Name of the guest kernel of a saved machine; undefined: the daemon's own, or it is not known. */
export function kernelOf({ record }: SavedMachine): string | undefined {
  return savedShape.safeParse(record).data?.shape.kernel;
}

/**
 * Reads what `saveMachine` said.
 * @throws {Conflict} this host's machines cannot go on with it
 * @throws {SystemError} it is damaged
 */
export function checkSaved(
  { record }: SavedMachine,
  info: HypervisorInfo,
  nics: MachineShape["nics"],
): SavedRecord {
  const parsed = savedShape.safeParse(record);
  if (!parsed.success) {
    throw new SystemError("the record of a saved machine is damaged");
  }
  const { version, accelerator, shape } = parsed.data;
  const then = `QEMU ${version} with ${accelerator}`;
  const now = `QEMU ${info.version} with ${info.accelerator}`;
  if (then !== now) {
    throw new Conflict(
      `the machine was saved on ${then} and cannot go on with ${now}`,
    );
  }
  if (shape.nics !== nics) {
    throw new Conflict(
      `the machine was saved with a network of mode ${shape.nics} and cannot go on with one of mode ${nics}`,
    );
  }
  return parsed.data;
}

/**
 * Starts a machine that stands still where the saved one did.
 * @throws {Unavailable} QEMU cannot be started, or cannot take the state, with its own words
 */
export async function bringBack(
  platform: Platform,
  saved: SavedRecord,
  file: string,
  nics: NicBackend[],
  machineRoot: string,
): Promise<QemuMachine> {
  const state = await open(file, "r");
  try {
    const machine = await start({ machineRoot }, (directory, name) =>
      launch(platform, {
        ...{ name, directory, nics },
        shape: saved.shape,
        memory: { kind: "saved", of: saved.memory },
        state: state.fd,
      }),
    );
    machine.startKind = "restored";
    return machine;
  } finally {
    await state.close();
  }
}

/** A saved machine goes on once its disks are in its slots. */
export const goOnWith: Give = async (machine, spec) => {
  await handOver(machine, spec);
  await Promise.all([machine.resume(), answers(machine)]);
};
