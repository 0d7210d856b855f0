/** Published ports: which container has which, what the firewall must say, and what is on disk of it. */
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { isIPv6 } from "node:net";
import type { Logger } from "pino";
import { z } from "zod";
import { SystemError } from "../errors.js";
import { readRecord, writeRecord } from "../state-file.js";
import { forgetFlowsFrom, forgetFlowsTo } from "./conntrack.js";
import type { Firewall } from "./firewall.js";
import { Forwarder } from "./forwarder.js";
import type {
  ContainerNames,
  Endpoint,
  PortRequest,
  PortService,
  PublishedPort,
} from "./index.js";
import { hasIPv6Loopback } from "./links.js";
import {
  PortAllocator,
  type Allocation,
  type Reserve,
} from "./port-allocator.js";
import { reservePort } from "./port-reservation.js";
import type { PortRule } from "./port-rules.js";

interface Publication {
  /** The container's addresses. */
  address: string;
  address6?: string | undefined;
  ports: PublishedPort[];
  allocations: Allocation[];
}

const fileSchema = z.array(
  z.object({
    containerId: z.string(),
    address: z.ipv4(),
    address6: z.ipv6().optional(),
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
  readonly #forwarder: Forwarder;
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
    this.#forwarder = new Forwarder(options.log);
  }

  async publish(
    container: ContainerNames,
    endpoints: Endpoint[],
    requests: PortRequest[],
  ): Promise<PublishedPort[]> {
    const endpoint = this.#outward(endpoints);
    if (!endpoint || requests.length === 0) return [];
    const publication: Publication = {
      ...addressesOf(endpoint),
      ports: [],
      allocations: [],
    };
    const userMode = endpoint.nic?.kind === "user";
    this.#unclaimed.delete(container.id);
    try {
      for (const request of requests) {
        const { protocol, port } = request;
        const hostIps = request.hostIp
          ? [request.hostIp]
          : ["0.0.0.0", ...((await hasIPv6Loopback()) ? ["::"] : [])];
        if (userMode && hostIps.every((hostIp) => isIPv6(hostIp))) {
          throw new SystemError(
            `cannot publish at the IPv6 address [${request.hostIp}] only: a daemon that is not root publishes at IPv4 addresses, and at the IPv6 ones beside all of them`,
          );
        }
        const allocation = await this.#allocator.allocate(
          request,
          hostIps,
          this.#reserve(publication, port, userMode),
        );
        publication.allocations.push(allocation);
        const { hostPort } = allocation;
        for (const hostIp of hostIps) {
          publication.ports.push({ protocol, port, hostIp, hostPort });
        }
      }
      this.#published.set(container.id, publication);
      if (userMode) {
        await this.#handOver(endpoint, publication);
      } else {
        await this.#apply();
        await forgetFlowsTo(publication.ports, this.#options.log);
      }
    } catch (error) {
      this.#published.delete(container.id);
      await this.#release(publication);
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
      ...addressesOf(endpoint),
      ports,
      allocations: [],
    };
    const userMode = endpoint.nic?.kind === "user";
    this.#published.set(container.id, publication);
    for (const { protocol, port, hostIp, hostPort } of ports) {
      const allocation = this.#allocator.note({
        protocol,
        hostPort,
        hostIps: [hostIp],
      });
      publication.allocations.push(allocation);
      // QEMU has bound it.
      if (userMode && !isIPv6(hostIp)) continue;
      const reserve = this.#reserve(publication, port, userMode);
      await this.#allocator
        .reserve(allocation, reserve)
        .catch((error: unknown) => {
          this.#options.log.warn(
            { container: container.id, err: error },
            "another process has a container's published port",
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
    await forgetFlowsFrom(publication, this.#options.log);
    await this.#release(publication);
  }

  /** To be called once all running containers are restored: takes back what none of them has. */
  async removeOrphans(): Promise<void> {
    if (this.#unclaimed.size + this.#published.size === 0) return;
    this.#unclaimed.clear();
    await this.#apply();
  }

  /** What is published stays so. */
  async close(): Promise<void> {
    await this.#forwarder.close();
    await this.#allocator.close();
    await this.#writing;
  }

  /** In user mode the machine's QEMU binds the ports and forwards. */
  async #handOver(
    endpoint: Endpoint,
    { address, ports, allocations }: Publication,
  ): Promise<void> {
    if (endpoint.nic?.kind !== "user") return;
    endpoint.nic.forwards = ports
      .filter(({ hostIp }) => !isIPv6(hostIp))
      .map((port) => ({ ...port, address }));
    await Promise.all(allocations.map((one) => this.#allocator.unbind(one)));
  }

  /**
   * IPv4 is forwarded by the kernel, or by QEMU; a port of IPv6 is forwarded by the daemon, unless the
   * container has an IPv6 address: then only what comes from the loopback, which no rule can send out.
   */
  #reserve(
    { address, address6 }: Publication,
    port: number,
    userMode: boolean,
  ): Reserve {
    return (protocol, host, hostPort) =>
      isIPv6(host)
        ? this.#forwarder.open({
            protocol,
            host,
            port: hostPort,
            target: userMode
              ? { host: "127.0.0.1", port: hostPort }
              : { host: address6 ?? address, port },
          })
        : reservePort(protocol, host, hostPort);
  }

  async #release({ allocations }: Publication): Promise<void> {
    await Promise.all(allocations.map((one) => this.#allocator.release(one)));
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
    ].flatMap(({ address, address6, ports }) =>
      ports.flatMap((port): PortRule[] => {
        const to = isIPv6(port.hostIp) ? address6 : address;
        return to === undefined ? [] : [{ ...port, address: to }];
      }),
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
      ([containerId, { address, address6, ports }]) => ({
        containerId,
        address,
        ...(address6 && { address6 }),
        ports,
      }),
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

function addressesOf({ ipAddress, ipv6Address, ipv6Gateway }: Endpoint) {
  return {
    address: ipAddress,
    ...(ipv6Gateway && { address6: ipv6Address }),
  };
}
