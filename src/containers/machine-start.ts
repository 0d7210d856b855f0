/** From a container's record to its machine: image, networks, folder and machine side by side. */
import type { ShareSetup } from "../../protocol/index.js";
import { faultPoint } from "../fault.js";
import type {
  BlankMachine,
  Forward,
  Hypervisor,
  Machine,
} from "../hypervisor/index.js";
import type { ImageSource } from "../images/index.js";
import type { NetworkService } from "../networks/index.js";
import { allDone, attachNetworks } from "./attach-networks.js";
import type { Container } from "./container.js";
import { furnishingOf, likelyDisks } from "./furnishing.js";
import { type MachineDefaults, machineSize } from "./machine-spec.js";
import type { ContainerRecord } from "./record.js";
import type { StartTrace } from "./start-trace.js";

export interface MachineStartOptions {
  images: ImageSource;
  hypervisor: Hypervisor;
  networks: NetworkService;
  defaults: MachineDefaults;
}

export interface StartedMachine {
  machine: Machine;
  /**
   * Does the host's part of the start. To be called once, when the guest has been told what it is to do: both then work
   * at the same time, and the guest has more to do.
   */
  doHostsPart: () => HostsPart;
}

export interface HostsPart {
  /** The record says what is to be found again: disks and ports. */
  recordable: Promise<void>;
  /** What a process of the container's needs is there, too: its network and its log. */
  ready: Promise<void>;
}

/**
 * Starts a container's machine, up to the agent's first answer.
 * @param directory where the machine is to have its sockets
 * @param shares the container's binds and volumes
 */
export async function startMachine(
  container: Container,
  directory: string,
  shares: readonly ShareSetup[],
  options: MachineStartOptions,
  trace: StartTrace,
): Promise<StartedMachine> {
  const starting = start(container, directory, shares, options, trace);
  await trace.machine(starting.then(({ machine }) => machine));
  return starting;
}

/** Most containers are started as soon as they have been made: the machine for this one may awake meanwhile. */
export async function anticipateStart(
  record: ContainerRecord,
  {
    images,
    hypervisor,
    defaults,
  }: Pick<MachineStartOptions, "images" | "hypervisor" | "defaults">,
): Promise<void> {
  const image = await images.disk(record.imageId);
  const size = machineSize(record, defaults);
  hypervisor.anticipate(size, likelyDisks(record, image));
}

async function start(
  container: Container,
  directory: string,
  shares: readonly ShareSetup[],
  options: MachineStartOptions,
  trace: StartTrace,
): Promise<StartedMachine> {
  const { record } = container;
  const { images, hypervisor, networks, defaults } = options;
  const image = await trace.span("image", images.disk(record.imageId));
  const blank = hypervisor.prepare(
    machineSize(record, defaults),
    furnishingOf(container, image, shares),
  );
  const network = blank.then(({ taps }) =>
    attachNetworks(container, taps, networks),
  );
  const addresses = trace.span("addresses", network);
  let machine: BlankMachine | undefined;
  try {
    machine = await blank;
    await addresses;
    faultPoint("start.attached");
  } catch (error) {
    // What is under way comes to its end before it is undone.
    await Promise.allSettled([addresses]);
    machine?.discard();
    throw error;
  }
  const { published, connect } = await network;
  try {
    const started = await machine.start({
      id: record.id,
      directory,
      disks: [
        image,
        {
          parts: [{ path: container.writableDisk, bytes: record.diskBytes }],
          readonly: false,
        },
      ],
      forwards: forwardsOf(record),
    });
    const doHostsPart = () => {
      const settled = started.settle();
      return {
        recordable: allDone([settled, published]),
        ready: allDone([
          settled,
          trace.span("network", connect()),
          trace.span("log", container.log.begin({ stdout: 0, stderr: 0 })),
        ]),
      };
    };
    return { machine: started, doHostsPart };
  } catch (error) {
    await Promise.allSettled([published]);
    throw error;
  }
}

/** Ports that user mode forwards. */
export function forwardsOf({ endpoints }: ContainerRecord): Forward[] {
  return endpoints.flatMap(({ nic }) =>
    nic?.kind === "user" ? (nic.forwards ?? []) : [],
  );
}
