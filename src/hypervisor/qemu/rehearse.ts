/** Has a machine go through a start before it is put into the warm pool; see `Rehearsal`. */
import { rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { Disk, Rehearsal } from "../index.js";
import { takeFilesBack } from "./descriptors.js";
import { ejectDisk, insertDisk } from "./handover.js";
import type { QemuMachine } from "./machine.js";

/** How long the guest's kernel has for what it does later (freeing, flushing), in ms. */
const SETTLE_MS = 200;
/** A rehearsal that takes longer is given up, in ms. */
const LIMIT_MS = 60_000;

/**
 * Resolves when the machine stands still, with empty slots and nothing left of the rehearsal.
 * @throws whatever went wrong; the machine is of no use then
 */
export async function rehearse(
  machine: QemuMachine,
  rehearsal: Rehearsal,
): Promise<void> {
  const limit = new AbortController();
  const late = sleep(LIMIT_MS, undefined, { signal: limit.signal }).then(
    () => {
      throw new Error(`a rehearsal took more than ${LIMIT_MS / 1000} s`);
    },
    () => undefined as never,
  );
  try {
    await Promise.race([perform(machine, rehearsal), late]);
  } finally {
    limit.abort();
  }
}

async function perform(
  machine: QemuMachine,
  rehearsal: Rehearsal,
): Promise<void> {
  const { qmp, agent, directory } = machine;
  const disks = await rehearsal.disks(directory);
  const nodeOf = (slot: number) => `rehearsal${slot}`;
  await Promise.all(
    disks.map((disk, slot) =>
      insertDisk(qmp, disk, slot, directory, nodeOf(slot)),
    ),
  );
  await rehearsal.run(agent);
  await agent.request("reset", {});
  await sleep(SETTLE_MS);
  await Promise.all(disks.map((_, slot) => ejectDisk(qmp, slot, nodeOf(slot))));
  // QEMU closes no file of a machine that stands still.
  await takeFilesBack(qmp);
  await machine.pause();
  await removeWritten(disks);
}

async function removeWritten(disks: readonly Disk[]): Promise<void> {
  const written = disks.filter(({ readonly }) => !readonly);
  await Promise.all(
    written.flatMap(({ parts }) =>
      parts.map(({ path }) => rm(path, { force: true })),
    ),
  );
}
