/** The network `none`: the machine gets no NIC, the container has its loopback device only. */
import { Endpoints } from "./endpoints.js";
import type { ContainerNames, Endpoint, NetworkInfo } from "./index.js";
import type { Network } from "./network.js";
import { randomId, type NetworkRecord } from "./record.js";
import type { Resolvers } from "./resolvers.js";

export class NoneNetwork implements Network {
  readonly #record: NetworkRecord;
  readonly #resolvers: Resolvers;
  readonly #endpoints = new Endpoints();

  constructor(record: NetworkRecord, resolvers: Resolvers) {
    this.#record = record;
    this.#resolvers = resolvers;
  }

  get id(): string {
    return this.#record.id;
  }

  get name(): string {
    return this.#record.name;
  }

  info(): NetworkInfo {
    return {
      id: this.id,
      name: this.name,
      driver: "null",
      created: this.#record.created,
      predefined: true,
      internal: false,
      enableIPv4: true,
      subnets: [],
      options: {},
      labels: {},
      endpoints: this.#endpoints.info(),
    };
  }

  async attach(container: ContainerNames): Promise<Endpoint> {
    this.#endpoints.refuseTwice(container, this.name);
    const endpoint: Endpoint = {
      network: this.name,
      networkId: this.id,
      endpointId: randomId(),
      ipAddress: "",
      ipPrefixLen: 0,
      gateway: "",
      macAddress: "",
      ...(await this.#resolvers.read()),
    };
    this.#endpoints.add(container, endpoint);
    return endpoint;
  }

  async detach(containerId: string): Promise<void> {
    this.#endpoints.remove(containerId);
  }

  restore(container: ContainerNames, endpoint: Endpoint): void {
    this.#endpoints.add(container, endpoint);
  }

  async removeOrphans(): Promise<void> {}

  async close(): Promise<void> {}
}
