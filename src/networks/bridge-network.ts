/** A network on a Linux bridge: one tap a container, addresses from a pool, NAT to the outside. */
import type { Server } from "node:net";
import type { Logger } from "pino";
import { InvalidParameter, SystemError, Unavailable } from "../errors.js";
import { AddressPool, macOf } from "./address-pool.js";
import { claimBridge } from "./bridge-claim.js";
import { BridgeDevice } from "./bridge-device.js";
import { runTool } from "./command.js";
import { Endpoints } from "./endpoints.js";
import { type Firewall, warnOfForeignDrop } from "./firewall.js";
import type {
  AttachRequest,
  ContainerNames,
  Endpoint,
  NetworkInfo,
} from "./index.js";
import {
  contains,
  formatAddress,
  formatSubnet,
  parseAddress,
  parseInterface,
  type Subnet,
} from "./ipv4.js";
import type { Network, Taps } from "./network.js";
import { allowLoopback } from "./port-rules.js";
import { randomId, type NetworkRecord, type RecordFile } from "./record.js";
import type { Resolvers } from "./resolvers.js";
import { chooseSubnet, collisions, type Route } from "./subnet-choice.js";

export interface BridgeNetworkOptions {
  record: NetworkRecord;
  file: RecordFile;
  resolvers: Resolvers;
  firewall: Firewall;
  /** Name of the Linux bridge. */
  bridge: string;
  /** The host's address on it with prefix length, e.g. "172.17.0.1/16"; chosen where absent. */
  address: string | undefined;
  mtu: number;
  log: Logger;
}

export class BridgeNetwork implements Network {
  readonly #options: BridgeNetworkOptions;
  readonly #device: BridgeDevice;
  readonly #claim: Server;
  readonly #gateway: { address: number; subnet: Subnet };
  readonly #pool: AddressPool;
  readonly #endpoints = new Endpoints();
  /** Leases of an earlier daemon that no container has claimed yet: address by container ID. */
  readonly #unclaimed = new Map<string, number>();
  /** Taps that are on no network. */
  readonly #spareTaps = new Set<string>();
  readonly taps: Taps = {
    create: () => this.#createTap(),
    discard: (device) => {
      this.#spareTaps.delete(device);
      this.#device.removeTap(device);
    },
    restore: (device) => this.#spareTaps.add(device),
  };

  /**
   * Makes the bridge, its address and its rules, or takes over the ones that are there.
   * @throws {InvalidParameter} the configured address is impossible
   * @throws {Unavailable} no subnet is free, or the name is taken
   * @throws {SystemError} the kernel refused, in its words
   */
  static async open(options: BridgeNetworkOptions): Promise<BridgeNetwork> {
    const claim = await claimBridge(options.bridge);
    let device: BridgeDevice | undefined;
    try {
      const gateway = await chooseGateway(options);
      const network = new BridgeNetwork(options, gateway, claim);
      device = network.#device;
      await device.up();
      await allowLoopback(options.bridge);
      options.firewall.rules.networks.push({
        bridge: options.bridge,
        subnet: network.#gateway.subnet,
      });
      await options.firewall.apply();
      network.#save();
      void warnOfForeignDrop(options.bridge, options.log);
      return network;
    } catch (error) {
      await device?.close();
      claim.close();
      throw error;
    }
  }

  private constructor(
    options: BridgeNetworkOptions,
    gateway: string,
    claim: Server,
  ) {
    const { record } = options;
    this.#options = options;
    this.#claim = claim;
    this.#gateway = parseInterface(gateway);
    this.#pool = new AddressPool(this.#gateway.subnet, [this.#gateway.address]);
    if (record.lastAddress) {
      this.#pool.last = parseAddress(record.lastAddress);
    }
    for (const lease of record.leases) {
      const address = parseAddress(lease.address);
      if (this.#pool.reserve(address)) {
        this.#unclaimed.set(lease.containerId, address);
      }
    }
    this.#device = new BridgeDevice(
      {
        name: options.bridge,
        networkId: record.id,
        address: gateway,
        mac: macOf(this.#gateway.address),
        mtu: options.mtu,
      },
      options.log,
    );
  }

  get id(): string {
    return this.#options.record.id;
  }

  get name(): string {
    return this.#options.record.name;
  }

  /** E.g. "172.17.0.0/16". */
  get subnet(): string {
    return formatSubnet(this.#gateway.subnet);
  }

  info(): NetworkInfo {
    const { record, bridge, mtu } = this.#options;
    return {
      id: record.id,
      name: record.name,
      driver: "bridge",
      created: record.created,
      predefined: true,
      internal: false,
      enableIPv4: true,
      subnets: [
        { subnet: this.subnet, gateway: formatAddress(this.#gateway.address) },
      ],
      options: {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
        "com.docker.network.bridge.name": bridge,
        "com.docker.network.driver.mtu": String(mtu),
      },
      labels: {},
      endpoints: this.#endpoints.info(),
    };
  }

  async attach(
    container: ContainerNames,
    { tap }: AttachRequest,
  ): Promise<Endpoint> {
    this.#endpoints.refuseTwice(container, this.name);
    this.#dropUnclaimed(container.id);
    const address = this.#pool.allocate();
    if (address === undefined) {
      throw new Unavailable(
        `failed to allocate an address on network ${this.name}: no available IPv4 addresses in ${this.subnet}`,
      );
    }
    const device = tap ?? this.#device.tapName(container.id);
    const endpoint = this.#endpoint(address, device);
    // Known from now on: a second attach is refused and removeOrphans leaves the tap alone.
    this.#endpoints.add(container, endpoint);
    try {
      const [resolvers] = await Promise.all([
        this.#options.resolvers.read(),
        this.#device.addTap(device, tap !== undefined),
      ]);
      Object.assign(endpoint, resolvers);
    } catch (error) {
      this.#endpoints.remove(container.id);
      this.#pool.release(address);
      throw refusal(error);
    }
    this.#spareTaps.delete(device);
    this.#save();
    return endpoint;
  }

  async detach(containerId: string): Promise<void> {
    this.#dropUnclaimed(containerId);
    const endpoint = this.#endpoints.remove(containerId);
    if (!endpoint) {
      return;
    }
    if (endpoint.nic?.kind === "tap") {
      this.#device.removeTap(endpoint.nic.device);
    }
    if (endpoint.ipAddress) {
      this.#pool.release(parseAddress(endpoint.ipAddress));
    }
    this.#save();
  }

  restore(container: ContainerNames, endpoint: Endpoint): void {
    this.#dropUnclaimed(container.id);
    if (endpoint.ipAddress) {
      const address = parseAddress(endpoint.ipAddress);
      if (!this.#pool.reserve(address)) {
        this.#options.log.warn(
          { container: container.id, address: endpoint.ipAddress },
          contains(this.#gateway.subnet, address)
            ? "a running container's address is in use twice"
            : "a running container's address is not in its network's subnet any more",
        );
      }
    }
    this.#endpoints.add(container, endpoint);
    this.#save();
  }

  async removeOrphans(): Promise<void> {
    for (const containerId of [...this.#unclaimed.keys()]) {
      this.#dropUnclaimed(containerId);
    }
    this.#save();
    await this.#device.removeOtherTaps(() => this.#taps());
  }

  async close(): Promise<void> {
    await Promise.all([this.#device.close(), this.#options.file.flush()]);
    this.#claim.close();
  }

  #endpoint(address: number, device: string): Endpoint {
    const { subnet } = this.#gateway;
    const mac = macOf(address);
    const ip = formatAddress(address);
    const gateway = formatAddress(this.#gateway.address);
    return {
      network: this.name,
      networkId: this.id,
      endpointId: randomId(),
      nic: { kind: "tap", mac, device },
      interface: {
        index: 0,
        name: "eth0",
        mac,
        mtu: this.#options.mtu,
        addresses: [`${ip}/${subnet.prefix}`],
        gateways: [gateway],
      },
      ipAddress: ip,
      ipPrefixLen: subnet.prefix,
      gateway,
      macAddress: mac,
      nameservers: [],
      search: [],
      dnsOptions: [],
    };
  }

  async #createTap(): Promise<string> {
    // An ID no container has, so that it clashes with no container's own tap.
    const device = this.#device.tapName(randomId());
    this.#spareTaps.add(device);
    try {
      await this.#device.addSpareTap(device);
    } catch (error) {
      this.#spareTaps.delete(device);
      throw refusal(error);
    }
    return device;
  }

  #taps(): Set<string> {
    const plugged = this.#endpoints
      .all()
      .flatMap(({ nic }) => (nic?.kind === "tap" ? [nic.device] : []));
    return new Set([...plugged, ...this.#spareTaps]);
  }

  #dropUnclaimed(containerId: string): void {
    const address = this.#unclaimed.get(containerId);
    if (address !== undefined) {
      this.#unclaimed.delete(containerId);
      this.#pool.release(address);
    }
  }

  #save(): void {
    const claimed = this.#endpoints
      .info()
      .filter((endpoint) => endpoint.ipv4Address)
      .map(({ containerId, ipv4Address }) => ({
        containerId,
        address: ipv4Address.replace(/\/.*/, ""),
      }));
    const unclaimed = [...this.#unclaimed].map(([containerId, address]) => ({
      containerId,
      address: formatAddress(address),
    }));
    this.#options.file.save({
      ...this.#options.record,
      gateway: `${formatAddress(this.#gateway.address)}/${this.#gateway.subnet.prefix}`,
      lastAddress: formatAddress(this.#pool.last),
      leases: [...claimed, ...unclaimed],
    });
  }
}

/** The kernel's refusal, as the one who starts a container is to read it. */
function refusal(error: unknown): unknown {
  return error instanceof SystemError
    ? new Unavailable(
        `failed to set up container networking: ${error.message}`,
        { cause: error },
      )
    : error;
}

/** The host's address on the bridge: as configured, as it was, or the first free of the defaults. */
async function chooseGateway(options: BridgeNetworkOptions): Promise<string> {
  const { address, record, bridge, log } = options;
  if (address !== undefined) {
    checkGateway(address);
    return address;
  }
  const routes = await readRoutes();
  if (record.gateway) {
    const hidden = collisions(
      parseInterface(record.gateway).subnet,
      routes,
      bridge,
    );
    if (hidden.length > 0) {
      log.warn(
        { subnet: record.gateway, routes: hidden },
        "the subnet of the network bridge collides with routes of the host",
      );
    }
    return record.gateway;
  }
  const { nameservers } = await options.resolvers.read();
  const subnet = chooseSubnet(
    routes,
    nameservers.flatMap((server) => {
      try {
        return [parseAddress(server)];
      } catch {
        return [];
      }
    }),
    bridge,
  );
  if (!subnet) {
    throw new Unavailable(
      "the host's routes leave no subnet free for the network bridge; configure one",
    );
  }
  return `${formatAddress(subnet.network + 1)}/${subnet.prefix}`;
}

function checkGateway(text: string): void {
  let gateway: ReturnType<typeof parseInterface>;
  try {
    gateway = parseInterface(text);
  } catch (error) {
    throw new InvalidParameter(
      `invalid bridge address ${text}: ${(error as Error).message}`,
    );
  }
  const { address, subnet } = gateway;
  if (subnet.prefix > 29 || subnet.prefix < 8 || address === subnet.network) {
    throw new InvalidParameter(
      `invalid bridge address ${text}: it must be a host's address with a prefix length of 8 to 29`,
    );
  }
}

async function readRoutes(): Promise<Route[]> {
  const output = await runTool("ip", ["-4", "-json", "route"]);
  return JSON.parse(output || "[]") as Route[];
}
