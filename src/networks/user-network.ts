/**
 * The network `bridge` of a daemon that may not make network devices: each machine has QEMU's user-mode
 * stack to itself, which passes its connections on as the daemon's own. Containers reach the outside and
 * not each other; the addresses are QEMU's and the same for all.
 */
import { macOf } from "./address-pool.js";
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

// QEMU's defaults for -netdev user.
const SUBNET = "10.0.2.0/24";
const ADDRESS = "10.0.2.15";
const PREFIX_LENGTH = 24;
const GATEWAY = "10.0.2.2";
const NAMESERVER = "10.0.2.3";
const MTU = 1500;

export class UserNetwork implements Network {
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
      driver: "user",
      created: this.#record.created,
      predefined: true,
      internal: false,
      attachable: false,
      enableIPv4: true,
      enableIPv6: false,
      subnets: [{ subnet: SUBNET, gateway: GATEWAY }],
      options: {},
      labels: {},
      endpoints: this.#endpoints.info(),
    };
  }

  async attach(container: ContainerNames): Promise<Endpoint> {
    this.#endpoints.refuseTwice(container, this.name);
    const mac = macOf(ADDRESS);
    const endpoint: Endpoint = {
      network: this.name,
      networkId: this.id,
      endpointId: randomId(),
      nic: { kind: "user", mac },
      interface: {
        index: 0,
        name: "eth0",
        mac,
        mtu: MTU,
        addresses: [`${ADDRESS}/${PREFIX_LENGTH}`],
        gateways: [GATEWAY],
      },
      ipAddress: ADDRESS,
      ipPrefixLen: PREFIX_LENGTH,
      gateway: GATEWAY,
      macAddress: mac,
      // QEMU asks the host's resolvers, loopback ones included.
      ...this.#resolvers.read(NAMESERVER),
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
