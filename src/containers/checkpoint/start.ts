/** The machine of a checkpoint: its state, a copy of its disk, and the same places on the same networks. */
import { rename, rm } from "node:fs/promises";
import path from "node:path";
import { Conflict } from "../../errors.js";
import type { Machine } from "../../hypervisor/index.js";
import type { NetworkService } from "../../networks/index.js";
import { namesOf } from "../attach-networks.js";
import type { Container } from "../container.js";
import { freshEntropy } from "../machine-spec.js";
import { forwardsOf, type MachineStartOptions } from "../machine-start.js";
import { portRequests } from "../port-requests.js";
import { ANSWER_LIMIT, answerWithin } from "../run/within.js";
import { copyDisk } from "../writable-disk.js";
import type { Checkpoint } from "./store.js";

/**
 * Brings the machine back up to the agent's first answer. The container's disk becomes the checkpoint's: what
 * was written since is gone. Its processes are still frozen, as they were when it was saved.
 * @param directory where the machine is to have its sockets
 * @throws {Conflict} the container is on other networks now, or the host's machines are others
 */
export async function startFromCheckpoint(
  container: Container,
  checkpoint: Checkpoint,
  directory: string,
  options: MachineStartOptions,
): Promise<Machine> {
  const { record } = container;
  const { images, hypervisor, networks } = options;
  checkNetworks(container, checkpoint);
  const disk = path.join(container.directory, "restored.img");
  try {
    await copyDisk(checkpoint.disk, disk);
    const blank = await hypervisor.prepareSaved({
      file: checkpoint.machineFile,
      record: checkpoint.record.machine,
    });
    let image;
    try {
      image = await images.disk(record.imageId);
      await reattachNetworks(container, checkpoint, blank.taps, networks);
    } catch (error) {
      blank.discard();
      throw error;
    }
    const bytes = checkpoint.record.diskBytes;
    container.takeBlankDisk();
    const machine = await blank.start({
      id: record.id,
      directory,
      disks: [image, { parts: [{ path: disk, bytes }], readonly: false }],
      forwards: forwardsOf(record),
    });
    try {
      // The machine has it open: another name does not matter to it.
      await rename(disk, container.writableDisk);
      await answerWithin(
        machine.agent.request("wake", {
          time: Date.now(),
          entropy: freshEntropy(),
        }),
        "wake",
        ANSWER_LIMIT,
      );
    } catch (error) {
      await machine.kill();
      throw error;
    }
    return machine;
  } catch (error) {
    await rm(disk, { force: true });
    throw error;
  }
}

/** The guest's NICs are configured already. */
function checkNetworks(container: Container, { record }: Checkpoint): void {
  const ids = (networks: typeof record.networks) =>
    networks
      .map(({ networkId, network }) => networkId ?? network)
      .sort()
      .join(" ");
  if (ids(container.record.networks) !== ids(record.networks)) {
    throw new Conflict(
      "the container's networks have changed since the checkpoint was made",
    );
  }
}

/** As `attachNetworks`, with the addresses and in the slots the guest has. */
async function reattachNetworks(
  container: Container,
  checkpoint: Checkpoint,
  taps: readonly string[],
  networks: NetworkService,
): Promise<void> {
  const { record } = container;
  record.taps = [...taps];
  record.endpoints = [];
  for (const before of checkpoint.record.endpoints) {
    const { interface: setup, ipAddress, ipv6Address, macAddress } = before;
    const request = record.networks.find(
      (one) => one.networkId === before.networkId,
    );
    const tap = setup && taps[setup.index];
    const endpoint = await networks.attach(namesOf(record), {
      ...request,
      network: before.networkId,
      again: true,
      ...(ipAddress && { ipv4Address: ipAddress }),
      ...(ipv6Address && { ipv6Address }),
      ...(macAddress && { macAddress }),
      ...(tap !== undefined && { tap }),
    });
    if (endpoint.interface && setup) {
      endpoint.interface.index = setup.index;
      endpoint.interface.name = setup.name;
    }
    record.endpoints.push(endpoint);
  }
  record.ports = await networks.ports.publish(
    namesOf(record),
    record.endpoints,
    portRequests(record),
  );
}
