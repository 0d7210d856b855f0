/** The network `none`: the machine gets no NIC, the container has its loopback device only. */
import { Endpoints } from "./endpoints.js";
import { refuseOnPredefined } from "./endpoint-request.js";
import type {
  AttachRequest,
  ContainerNames,
  Endpoint,
  NetworkInfo,
} from "./index.js";
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
      attachable: false,
      enableIPv4: true,
      enableIPv6: false,
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
      ...this.#resolvers.read(),
    };
    this.#endpoints.add(container, endpoint);
    return endpoint;
  }

  async detach(containerId: string): Promise<boolean> {
    return this.#endpoints.remove(containerId) !== undefined;
  }

  rename(container: ContainerNames): void {
    this.#endpoints.rename(container);
  }

  check(request: AttachRequest): void {
    refuseOnPredefined(request);
  }

  restore(container: ContainerNames, endpoint: Endpoint): void {
    this.#endpoints.add(container, endpoint);
  }

  async removeOrphans(): Promise<void> {}

  async close(): Promise<void> {}
}
