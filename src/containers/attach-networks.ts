/**
 * A container's networks and its machine's NICs. A machine's NICs are there from its start and never
 * change: each is a slot that a network may come into, also while the container runs.
 */
import type { InterfaceSetup } from "../../protocol/index.js";
import type { ContainerNames, NetworkService } from "../networks/index.js";
import type { Container } from "./container.js";
import { portRequests } from "./port-requests.js";
import type { ContainerRecord } from "./record.js";

/** What networks know a container by. */
export function namesOf(record: ContainerRecord): ContainerNames {
  return {
    id: record.id,
    name: record.name,
    hostname: record.config.Hostname,
    dns: record.hostConfig.Dns ?? [],
  };
}

export interface Attachment {
  published: Promise<void>;
  connected: Promise<void>;
}

/**
 * Gives a container that starts its endpoints: the i-th network the machine's i-th tap. Resolves when the
 * guest can be told of them.
 * @param taps of the machine, by slot
 * @returns `published`: the record says where its ports are; `connected`: the host's part is in place, too, which
 *   is to be waited for before a process of the container's runs
 */
export async function attachNetworks(
  container: Container,
  taps: readonly string[],
  networks: NetworkService,
): Promise<Attachment> {
  const { record } = container;
  const plugging: Promise<void>[] = [];
  record.taps = [...taps];
  record.endpoints = [];
  try {
    for (const request of record.networks) {
      const slot = record.endpoints.length;
      const tap = taps[slot];
      const endpoint = await networks.attach(
        namesOf(record),
        { ...request, ...(tap !== undefined && { tap }) },
        (plugged) => {
          // Told to who waits for `connected`, or for an attachment that came later and failed.
          plugged.catch(() => undefined);
          plugging.push(plugged);
        },
      );
      request.networkId = endpoint.networkId;
      place(endpoint.interface, slot);
      record.endpoints.push(endpoint);
    }
  } catch (error) {
    await Promise.allSettled(plugging);
    throw error;
  }
  const published = networks.ports
    .publish(namesOf(record), record.endpoints, portRequests(record))
    .then((ports) => void (record.ports = ports));
  plugging.push(published);
  // QEMU is to be told of the ports that its user mode forwards.
  if (record.endpoints.some(({ nic }) => nic?.kind === "user")) await published;
  const connected = Promise.all(plugging).then(() => undefined);
  connected.catch(() => undefined);
  return { published, connected };
}

/** Puts an interface into a slot. */
export function place(setup: InterfaceSetup | undefined, slot: number): void {
  if (!setup) return;
  setup.index = slot;
  setup.name = `eth${slot}`;
}

/** The first slot that no network is in. */
export function freeSlot(record: ContainerRecord): number | undefined {
  const used = record.endpoints.map((one) => one.interface?.index);
  const slot = (record.taps ?? []).findIndex((_, at) => !used.includes(at));
  return slot < 0 ? undefined : slot;
}

/**
 * The default gateway of each family: of the network with the highest priority, and among equals of the
 * one whose name comes first, as in Docker.
 */
export function defaultRoutes(
  record: ContainerRecord,
): { index: number; gateway: string }[] {
  const priority = (network: string) =>
    record.networks.find((one) => one.network === network)?.gwPriority ?? 0;
  const ranked = [...record.endpoints].sort(
    (a, b) =>
      priority(b.network) - priority(a.network) ||
      (a.network < b.network ? -1 : 1),
  );
  return [false, true].flatMap((ipv6) => {
    for (const { interface: setup } of ranked) {
      const gateway = setup?.gateways.find((one) => one.includes(":") === ipv6);
      if (setup && gateway) return [{ index: setup.index, gateway }];
    }
    return [];
  });
}

/** What the guest is told of its interfaces: default gateways only where they are the machine's. */
export function interfacesOf(record: ContainerRecord): InterfaceSetup[] {
  const routes = defaultRoutes(record);
  return record.endpoints.flatMap(({ interface: setup }) =>
    setup
      ? [
          {
            ...setup,
            gateways: routes
              .filter(({ index }) => index === setup.index)
              .map(({ gateway }) => gateway),
          },
        ]
      : [],
  );
}
