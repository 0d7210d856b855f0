/** The start of a container that nobody sees: what a machine of the warm pool goes through beforehand. */
import { stat } from "node:fs/promises";
import path from "node:path";
import { Channel, INIT_PROCESS } from "../../protocol/index.js";
import { SystemError } from "../errors.js";
import { AgentFailure } from "../hypervisor/index.js";
import type {
  AgentClient,
  Disk,
  Furnishing,
  Rehearsal,
} from "../hypervisor/index.js";
import { furnishOf } from "./furnishing.js";
import { freshEntropy, initSpawn, setupOf } from "./machine-spec.js";
import { plainRecord } from "./plain-record.js";
import type { ContainerRecord } from "./record.js";
import type { WritableDisks } from "./writable-disk.js";

export interface StartRehearsalOptions {
  /** EROFS image with the program to run. */
  image: string;
  disks: WritableDisks;
  /** Size of a container's writable disk, in bytes. */
  diskBytes: number;
}

export class StartRehearsal implements Rehearsal {
  readonly #options: StartRehearsalOptions;

  constructor(options: StartRehearsalOptions) {
    this.#options = options;
  }

  async disks(directory: string): Promise<Disk[]> {
    const { image, disks, diskBytes } = this.#options;
    const writable = path.join(directory, "rehearsal.img");
    await disks.copy(writable, diskBytes);
    const { size } = await stat(image);
    return [
      { parts: [{ path: image, bytes: size }], readonly: true },
      { parts: [{ path: writable, bytes: diskBytes }], readonly: false },
    ];
  }

  blank(bytes: number): Promise<string> {
    return this.#options.disks.spare(bytes);
  }

  copyOf(blank: string): Promise<string> {
    return this.#options.disks.spareOf(blank);
  }

  async furnish(agent: AgentClient, furnishing: Furnishing): Promise<void> {
    await agent.request("furnish", furnishOf(furnishing));
  }

  async load(agent: AgentClient, { program }: Furnishing): Promise<void> {
    await agent.request("seed", { entropy: freshEntropy() });
    if (program.name === "") return;
    try {
      await agent.request("load", { program });
    } catch (error) {
      if (!(error instanceof AgentFailure)) throw error;
    }
  }

  /** @throws {SystemError} the program did not do what it is for */
  async run(agent: AgentClient): Promise<void> {
    const ended = new Promise<number>((resolve) => {
      const stop = agent.onEvent((event) => {
        if (event.event !== "exit" || event.process !== INIT_PROCESS) return;
        stop();
        resolve(event.exit.code);
      });
    });
    const streams = [Channel.Stdout, Channel.Stderr] as const;
    const drained = streams.map(
      (channel) =>
        new Promise<void>((resolve) => {
          agent.output(INIT_PROCESS, channel, {
            data: (_, end, ack) => ack(end),
            eof: resolve,
          });
        }),
    );
    await Promise.all([
      agent.request("setup", setupOf(RECORD, [])),
      agent.request("spawn", initSpawn(RECORD)),
    ]);
    const [code] = await Promise.all([ended, ...drained]);
    if (code !== 0) throw new SystemError(`the rehearsal ended with ${code}`);
    await agent.request("release", { process: INIT_PROCESS });
  }
}

/** Nobody's container. The NIC it configures is on no network. */
const RECORD: ContainerRecord = {
  ...plainRecord("rehearsal", ["/bin/rehearse"]),
  endpoints: [
    {
      network: "",
      networkId: "",
      endpointId: "",
      interface: {
        index: 0,
        name: "eth0",
        mac: "02:00:00:00:00:01",
        mtu: 1500,
        addresses: ["192.0.2.2/24"],
        gateways: ["192.0.2.1"],
      },
      ipAddress: "192.0.2.2",
      ipPrefixLen: 24,
      gateway: "192.0.2.1",
      macAddress: "02:00:00:00:00:01",
      nameservers: ["192.0.2.1"],
      search: [],
      dnsOptions: [],
    },
  ],
};
