/** `docker checkpoint create`: the container's machine as it stands still, with its disk. */
import { Conflict } from "../../errors.js";
import type { Machine } from "../../hypervisor/index.js";
import type { Container } from "../container.js";
import type { Tell } from "../container-events.js";
import type { HealthMonitors } from "../health.js";
import { timestamp } from "../log/json-file.js";
import { freeze } from "../run/pausing.js";
import { copyDisk } from "../writable-disk.js";
import { type CheckpointPlace, draftCheckpoint } from "./store.js";

export interface CheckpointMaking {
  tell: Tell;
  health: HealthMonitors;
}

/**
 * Processes and machine stand still while memory and disk are written. Afterwards the machine goes on; with
 * `frozen` its processes do not, for the caller to end them.
 * @throws {InvalidParameter} the name or the folder cannot be
 * @throws {Conflict} it does not run, has mounts, or has a checkpoint of that name
 */
export function createCheckpoint(
  container: Container,
  place: CheckpointPlace,
  { tell, health }: CheckpointMaking,
  frozen: boolean,
): Promise<void> {
  return container.exclusive(async () => {
    const machine = checkState(container);
    const draft = await draftCheckpoint(container, place);
    health.stop(container);
    let made = false;
    try {
      // What they have written is on its way to the log before the machine stands still, too.
      await freeze(machine, true);
      await machine.pause();
      const [saved] = await Promise.all([
        machine.save(draft.machineFile),
        copyDisk(container.writableDisk, draft.disk),
      ]);
      const { record } = container;
      await draft.finish({
        version: 1,
        container: container.id,
        created: timestamp(),
        machine: saved,
        offsets: container.stdio.taken,
        networks: record.networks,
        endpoints: record.endpoints,
        diskBytes: record.diskBytes,
      });
      made = true;
      tell(container, "checkpoint");
    } catch (error) {
      await draft.abandon();
      throw error;
    } finally {
      await machine.resume();
      if (!made || !frozen) {
        await freeze(machine, false);
        health.resume(container);
      }
    }
  });
}

function checkState(container: Container): Machine {
  const { record, machine } = container;
  if (record.state.status === "paused") {
    throw new Conflict(
      `Container ${container.id} is paused. Unpause the container before a checkpoint`,
    );
  }
  if (record.state.status !== "running" || !machine) {
    throw new Conflict(`Container ${container.id} is not running`);
  }
  const mount = record.mounts?.[0];
  if (mount) {
    throw new Conflict(
      `cannot checkpoint a container with volumes or binds: ${mount.destination} is a folder of the host, and its state cannot be saved with the machine`,
    );
  }
  return machine;
}
