/** From a container's record to its machine: image, networks, folder and machine side by side. */
import { mkdir, rm } from "node:fs/promises";
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
import { type Attachment, attachNetworks } from "./attach-networks.js";
import type { Container } from "./container.js";
import { furnishingOf } from "./furnishing.js";
import { type MachineDefaults, machineSize } from "./machine-spec.js";
import type { ContainerRecord } from "./record.js";
import type { StartTrace } from "./start-trace.js";

export interface MachineStartOptions {
  images: ImageSource;
  hypervisor: Hypervisor;
  networks: NetworkService;
  defaults: MachineDefaults;
}

export interface StartedMachine extends Attachment {
  machine: Machine;
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
  const cable = trace.span(
    "network",
    network.then(({ connected }) => connected),
  );
  cable.catch(() => undefined);
  const work = [
    trace.span("addresses", network),
    trace.span("folder", freshDirectory(directory)),
    trace.span("log", container.log.begin({ stdout: 0, stderr: 0 })),
  ] as const;
  let machine: BlankMachine | undefined;
  try {
    machine = await blank;
    await Promise.all(work);
    faultPoint("start.attached");
  } catch (error) {
    // What is under way comes to its end before it is undone.
    await Promise.allSettled([...work, cable]);
    machine?.discard();
    throw error;
  }
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
    const { published } = await network;
    return { machine: started, published, connected: cable };
  } catch (error) {
    await Promise.allSettled([cable]);
    throw error;
  }
}

/** Ports that user mode forwards. */
export function forwardsOf({ endpoints }: ContainerRecord): Forward[] {
  return endpoints.flatMap(({ nic }) =>
    nic?.kind === "user" ? (nic.forwards ?? []) : [],
  );
}

/** What an earlier run left in a machine's folder is of no use to the next. */
export async function freshDirectory(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true, mode: 0o700 });
}
