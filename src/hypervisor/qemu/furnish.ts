/**
 * Furnishes machines ahead of their containers: one has behind its slots, and mounted, what the next container is likely
 * to need: the image that was used last, and a blank disk. It is for a container of that image only: what a guest
 * has read of another one's image may still be in its memory.
 */
import { rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { Disk, Furnishing, Rehearsal } from "../index.js";
import { insertDisk } from "./handover.js";
import type { QemuMachine } from "./machine.js";

/** How long the guest's kernel has for what it does later, in ms. */
const SETTLE_MS = 100;

/**
 * Has a machine with empty slots go on until it is furnished; it stands still then, and nothing of what it has
 * written is under way.
 * @param blank path of a blank disk, which goes with the machine unless it is handed over
 * @throws whatever went wrong; the machine is of no use then
 */
export async function furnish(
  machine: QemuMachine,
  furnishing: Furnishing,
  blank: string,
  rehearsal: Rehearsal,
): Promise<void> {
  const { qmp, agent, directory } = machine;
  const { image, blankBytes } = furnishing;
  giveAhead(machine, furnishing, blank);
  const disks: Disk[] = [
    image,
    { parts: [{ path: blank, bytes: blankBytes }], readonly: false },
  ];
  await Promise.all(
    disks.map((disk, slot) => insertDisk(qmp, disk, slot, directory)),
  );
  await machine.resume();
  await rehearsal.furnish(agent, furnishing);
  await sleep(SETTLE_MS);
  await machine.pause();
}

/**
 * Has a machine that is furnished, and stands still, take entropy and run the image's program ahead. Not for a zygote,
 * of which there are copies, and in which no code of an image ever runs.
 * @throws whatever went wrong; the machine is of no use then
 */
export async function load(
  machine: QemuMachine,
  furnishing: Furnishing,
  rehearsal: Rehearsal,
): Promise<void> {
  await machine.resume();
  await rehearsal.load(machine.agent, furnishing);
  machine.seeded = true;
  await sleep(SETTLE_MS);
  await machine.pause();
}

/** Tells what it has: see `furnish`. */
export function giveAhead(
  machine: QemuMachine,
  furnishing: Furnishing,
  blank: string,
): void {
  // Its name is the container's when it has been handed over.
  void machine.exited.then(() => rm(blank, { force: true }));
  machine.furnished = { furnishing, blank };
}
