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
  /** The record says where its ports are. */
  published: Promise<void>;
  /**
   * Puts the host's part in place, too, which is to be there before a process of the container's runs. To be called
   * when the guest has been told of its part: it has more to do.
   */
  connect: () => Promise<void>;
}

/**
 * Gives a container that starts its endpoints: the i-th network the machine's i-th tap. Resolves when the
 * guest can be told of them.
 * @param taps of the machine, by slot
 */
export async function attachNetworks(
  container: Container,
  taps: readonly string[],
  networks: NetworkService,
): Promise<Attachment> {
  const { record } = container;
  const plugs: (() => Promise<void>)[] = [];
  record.taps = [...taps];
  record.endpoints = [];
  for (const request of record.networks) {
    const slot = record.endpoints.length;
    const tap = taps[slot];
    const endpoint = await networks.attach(
      namesOf(record),
      { ...request, ...(tap !== undefined && { tap }) },
      (plug) => void plugs.push(plug),
    );
    request.networkId = endpoint.networkId;
    place(endpoint.interface, slot);
    record.endpoints.push(endpoint);
  }
  const published = networks.ports
    .publish(namesOf(record), record.endpoints, portRequests(record))
    .then((ports) => void (record.ports = ports));
  // Told to who waits for it, or for `connect`.
  published.catch(() => undefined);
  // QEMU is to be told of the ports that its user mode forwards.
  if (record.endpoints.some(({ nic }) => nic?.kind === "user")) await published;
  const connect = () => allDone([...plugs.map((plug) => plug()), published]);
  return { published, connect };
}

/** Rejects, too, only when all have come to their end: then what they did can be undone. */
export async function allDone(
  work: readonly Promise<unknown>[],
): Promise<void> {
  await Promise.allSettled(work);
  await Promise.all(work);
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
