/** Published ports: which container has which, what the firewall must say, and what is on disk of it. */
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { isIPv6 } from "node:net";
import type { Logger } from "pino";
import { z } from "zod";
import { SystemError } from "../errors.js";
import { readRecord, writeRecord } from "../state-file.js";
import type { Firewall } from "./firewall.js";
import type {
  ContainerNames,
  Endpoint,
  PortRequest,
  PortService,
  PublishedPort,
} from "./index.js";
import { PortAllocator, type Allocation } from "./port-allocator.js";
import type { PortRule } from "./port-rules.js";

interface Publication {
  /** The container's address. */
  address: string;
  ports: PublishedPort[];
  allocations: Allocation[];
}

const fileSchema = z.array(
  z.object({
    containerId: z.string(),
    address: z.ipv4(),
    ports: z.array(
      z.object({
        protocol: z.enum(["tcp", "udp"]),
        port: z.int(),
        hostIp: z.string(),
        hostPort: z.int(),
      }),
    ),
  }),
);

export interface PortOptions {
  /** Where the published ports are kept: a daemon that starts writes the firewall before it knows its containers. */
  file: string;
  firewall: Firewall;
  log: Logger;
}

export class Ports implements PortService {
  readonly #options: PortOptions;
  readonly #allocator = new PortAllocator();
  readonly #published = new Map<string, Publication>();
  /** What an earlier daemon published and no container has claimed yet. */
  readonly #unclaimed = new Map<string, Publication>();
  #writing: Promise<void> = Promise.resolve();

  static async open(options: PortOptions): Promise<Ports> {
    const ports = new Ports(options);
    await ports.#load();
    ports.#tellFirewall();
    return ports;
  }

  private constructor(options: PortOptions) {
    this.#options = options;
  }

  async publish(
    container: ContainerNames,
    endpoints: Endpoint[],
    requests: PortRequest[],
  ): Promise<PublishedPort[]> {
    const endpoint = this.#outward(endpoints);
    if (!endpoint || requests.length === 0) return [];
    const publication: Publication = {
      address: endpoint.ipAddress,
      ports: [],
      allocations: [],
    };
    this.#unclaimed.delete(container.id);
    try {
      for (const request of requests) {
        const { protocol, port } = request;
        const hostIps = [request.hostIp || "0.0.0.0"];
        const ipv6 = hostIps.find((hostIp) => isIPv6(hostIp));
        if (ipv6) {
          throw new SystemError(
            `cannot publish at the IPv6 address [${ipv6}]: the container has none`,
          );
        }
        const allocation = await this.#allocator.allocate(request, hostIps);
        publication.allocations.push(allocation);
        const { hostPort } = allocation;
        for (const hostIp of hostIps) {
          publication.ports.push({ protocol, port, hostIp, hostPort });
        }
      }
      this.#published.set(container.id, publication);
      if (endpoint.nic?.kind === "user") this.#handOver(endpoint, publication);
      else await this.#apply();
    } catch (error) {
      this.#published.delete(container.id);
      publication.allocations.forEach((one) => this.#allocator.release(one));
      throw new SystemError(
        `failed to set up container networking: driver failed programming external connectivity on endpoint ${container.name} (${endpoint.endpointId}): ${(error as Error).message}`,
        { cause: error },
      );
    }
    return publication.ports;
  }

  async restore(
    container: ContainerNames,
    endpoints: Endpoint[],
    ports: PublishedPort[],
  ): Promise<void> {
    this.#unclaimed.delete(container.id);
    const endpoint = this.#outward(endpoints);
    if (!endpoint || ports.length === 0) return;
    const publication: Publication = {
      address: endpoint.ipAddress,
      ports,
      allocations: [],
    };
    this.#published.set(container.id, publication);
    for (const { protocol, hostIp, hostPort } of ports) {
      const allocation = this.#allocator.note({
        protocol,
        hostPort,
        hostIps: [hostIp],
      });
      publication.allocations.push(allocation);
      // QEMU has bound it.
      if (endpoint.nic?.kind === "user") continue;
      await this.#allocator.reserve(allocation).catch((error: unknown) => {
        this.#options.log.warn(
          { container: container.id, err: error },
          "another process has a container's published port: who asks for it gets the container",
        );
      });
    }
    this.#tellFirewall();
  }

  async unpublish(containerId: string): Promise<void> {
    const publication = this.#published.get(containerId);
    if (!publication) return;
    this.#published.delete(containerId);
    try {
      await this.#apply();
    } catch (error) {
      this.#options.log.error(
        { container: containerId, err: error },
        "cannot take back the rules of published ports",
      );
    }
    publication.allocations.forEach((one) => this.#allocator.release(one));
  }

  /** To be called once all running containers are restored: takes back what none of them has. */
  async removeOrphans(): Promise<void> {
    if (this.#unclaimed.size + this.#published.size === 0) return;
    this.#unclaimed.clear();
    await this.#apply();
  }

  /** What is published stays so. */
  async close(): Promise<void> {
    this.#allocator.close();
    await this.#writing;
  }

  /** In user mode the machine's QEMU binds the ports and forwards. */
  #handOver(endpoint: Endpoint, { address, ports, allocations }: Publication) {
    if (endpoint.nic?.kind !== "user") return;
    endpoint.nic.forwards = ports.map((port) => ({ ...port, address }));
    allocations.forEach((allocation) => this.#allocator.unbind(allocation));
  }

  #outward(endpoints: Endpoint[]): Endpoint | undefined {
    // An internal network has no gateway: nothing is published by way of it.
    return endpoints.find(({ nic, gateway }) => nic && gateway);
  }

  async #apply(): Promise<void> {
    this.#tellFirewall();
    this.#save();
    await this.#options.firewall.apply();
  }

  #tellFirewall(): void {
    this.#options.firewall.rules.ports = [
      ...this.#unclaimed.values(),
      ...this.#published.values(),
    ].flatMap(({ address, ports }) =>
      ports.map((port): PortRule => ({ ...port, address })),
    );
  }

  /** Without the file the ports are published again as containers are found. */
  async #load(): Promise<void> {
    const { file, log } = this.#options;
    const known = (await readRecord(file, fileSchema, log)) ?? [];
    for (const { containerId, ...publication } of known) {
      this.#unclaimed.set(containerId, { ...publication, allocations: [] });
    }
  }

  #save(): void {
    const content = [...this.#unclaimed, ...this.#published].map(
      ([containerId, { address, ports }]) => ({ containerId, address, ports }),
    );
    const { file, log } = this.#options;
    this.#writing = this.#writing
      .then(async () => {
        await mkdir(dirname(file), { recursive: true, mode: 0o700 });
        await writeRecord(file, content);
      })
      .catch((error: unknown) => {
        log.error({ err: error, file }, "cannot write the published ports");
      });
  }
}
