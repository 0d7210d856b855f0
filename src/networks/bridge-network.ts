/** A network on a Linux bridge: one tap a container, addresses from pools, NAT to the outside. */
import { Forbidden, Unavailable } from "../errors.js";
import { faultPoint } from "../fault.js";
import { AddressPool, macOf } from "./address-pool.js";
import { bridgeDown, bridgeUp } from "./bridge-device.js";
import { NameServer } from "./dns/name-server.js";
import { dnsNames } from "./dns-names.js";
import { checkForSubnets, refuseOnPredefined } from "./endpoint-request.js";
import { Endpoints } from "./endpoints.js";
import type { FirewallNetwork } from "./firewall.js";
import { type HostNetwork, refusal } from "./host-network.js";
import type {
  AttachRequest,
  ContainerNames,
  Endpoint,
  NetworkInfo,
  PlugLater,
} from "./index.js";
import {
  canonical,
  contains,
  formatAddress,
  formatSubnet,
  parseAddress,
  parseInterface,
  parseSubnet,
  type Subnet,
} from "./ip.js";
import type { Network } from "./network.js";
import { allowLoopback } from "./port-rules.js";
import { randomId, type NetworkRecord, type RecordFile } from "./record.js";

export interface BridgeNetworkOptions {
  /** With the gateway of each family the network has. */
  record: NetworkRecord;
  file: RecordFile;
  host: HostNetwork;
  /** Name of the Linux bridge. */
  bridge: string;
  mtu: number;
  /** Containers on it reach each other. */
  icc: boolean;
  /** What leaves it has the host's address. */
  masquerade: boolean;
  /** Driver options as `inspect` shows them. */
  options: Record<string, string>;
}

/** The addresses of one family. */
interface Side {
  gateway: string;
  pool: AddressPool;
}

interface Lease {
  ipv4?: string | undefined;
  ipv6?: string | undefined;
}

export class BridgeNetwork implements Network {
  readonly #options: BridgeNetworkOptions;
  readonly #host: HostNetwork;
  readonly #ipv4: Side | undefined;
  readonly #ipv6: Side | undefined;
  readonly #rules: FirewallNetwork;
  readonly #endpoints = new Endpoints();
  /** What each container asked for, by container ID. */
  readonly #requests = new Map<string, AttachRequest>();
  /** Leases of an earlier daemon that no container has claimed yet, by container ID. */
  readonly #unclaimed = new Map<string, Lease>();
  readonly #nameServer: NameServer | undefined;

  constructor(options: BridgeNetworkOptions) {
    const { record, host } = options;
    this.#options = options;
    this.#host = host;
    const spec = record.spec;
    const side = (gateway: string | undefined, last: string | undefined) => {
      if (gateway === undefined) return undefined;
      const { address, subnet } = parseInterface(gateway);
      const asked = spec?.subnets.find(
        (one) => parseSubnet(one.subnet).family === subnet.family,
      );
      const reserved = Object.values(asked?.auxAddresses ?? {});
      const pool = new AddressPool(
        subnet,
        [address, ...reserved.map(parseAddress)],
        asked?.ipRange ? parseSubnet(asked.ipRange) : subnet,
      );
      if (last) pool.last = last;
      return { gateway: formatAddress(address), pool };
    };
    this.#ipv4 = side(record.gateway, record.lastAddress);
    this.#ipv6 = side(record.gateway6, record.lastAddress6);
    for (const { containerId, address, address6 } of record.leases) {
      this.#unclaimed.set(containerId, {
        ipv4:
          address && this.#ipv4?.pool.reserve(address) ? address : undefined,
        ipv6:
          address6 && this.#ipv6?.pool.reserve(address6) ? address6 : undefined,
      });
    }
    this.#rules = {
      bridge: options.bridge,
      subnets: this.subnets,
      internal: spec?.internal ?? false,
      masquerade: options.masquerade,
      names: !this.#predefined,
    };
    const gateway = this.#ipv4?.gateway ?? this.#ipv6?.gateway;
    if (!this.#predefined && gateway) {
      this.#nameServer = new NameServer({
        address: gateway,
        responder: host.responder,
        clientOf: (address) => host.names.ownerOf(record.id, address),
        log: host.log,
      });
    }
  }

  /**
   * Makes the bridge, its addresses, its rules and its name service, or takes over what is there.
   * @param fresh whether the network is new: an old one's name service may come up later
   * @throws {Unavailable} the bridge's name, or the name service's port, is taken
   * @throws {SystemError} the kernel refused, in its words
   */
  async up(fresh: boolean): Promise<void> {
    const { record, bridge, mtu } = this.#options;
    const { rules } = this.#host.firewall;
    await bridgeUp(
      {
        name: bridge,
        networkId: record.id,
        addresses: [
          this.#gateway(this.#ipv4),
          this.#gateway(this.#ipv6),
        ].flat(),
        mac: this.#ipv4
          ? macOf(this.#ipv4.gateway)
          : `02:42:${record.id.slice(0, 8).match(/../g)?.join(":")}`,
        mtu,
        internal: this.#rules.internal,
      },
      this.#host.log,
    );
    if (fresh) faultPoint("network-create.bridge");
    if (this.#ipv4 && !this.#rules.internal) await allowLoopback(bridge);
    if (!rules.networks.includes(this.#rules)) rules.networks.push(this.#rules);
    await this.#host.firewall.apply();
    if (fresh) await this.#nameServer?.open();
    else await this.#nameServer?.openInTheEnd();
    this.#save();
  }

  /** Removes all that `up` made. @throws {SystemError} the kernel refused */
  async down(): Promise<void> {
    const { rules } = this.#host.firewall;
    await this.#nameServer?.close();
    rules.networks = rules.networks.filter((one) => one !== this.#rules);
    await bridgeDown(this.#options.bridge, this.id);
    faultPoint("network-rm.bridge-gone");
    await this.#host.firewall.apply();
  }

  get id(): string {
    return this.#options.record.id;
  }

  get name(): string {
    return this.#options.record.name;
  }

  get bridge(): string {
    return this.#options.bridge;
  }

  get subnets(): Subnet[] {
    return [this.#ipv4, this.#ipv6].flatMap((side) => side?.pool.subnet ?? []);
  }

  /** Forgets the network on disk, too. To be called when it is down. */
  forget(): Promise<void> {
    return this.#options.file.remove();
  }

  info(): NetworkInfo {
    const { record, options } = this.#options;
    const { spec } = record;
    return {
      id: record.id,
      name: record.name,
      driver: "bridge",
      created: record.created,
      predefined: this.#predefined,
      internal: this.#rules.internal,
      attachable: spec?.attachable ?? false,
      enableIPv4: this.#ipv4 !== undefined,
      enableIPv6: this.#ipv6 !== undefined,
      subnets: [this.#ipv4, this.#ipv6].flatMap((side) => {
        if (!side) return [];
        const { subnet } = side.pool;
        const asked = spec?.subnets.find(
          (one) => one.subnet === formatSubnet(subnet),
        );
        return [
          {
            subnet: formatSubnet(subnet),
            gateway: side.gateway,
            ...(asked?.ipRange && { ipRange: asked.ipRange }),
            ...(asked &&
              Object.keys(asked.auxAddresses).length > 0 && {
                auxAddresses: asked.auxAddresses,
              }),
          },
        ];
      }),
      ...(spec?.ipamOptions && { ipamOptions: spec.ipamOptions }),
      options,
      labels: spec?.labels ?? {},
      endpoints: this.#endpoints.info(),
    };
  }

  check(request: AttachRequest): void {
    if (this.#predefined) {
      refuseOnPredefined(request);
      return;
    }
    const chosen = this.#options.record.spec?.subnets ?? [];
    const configured = (family: 4 | 6) =>
      chosen.some(({ subnet }) => parseSubnet(subnet).family === family);
    checkForSubnets(request, this.subnets, {
      ipv4: configured(4),
      ipv6: configured(6),
    });
  }

  async attach(
    container: ContainerNames,
    request: AttachRequest,
    plugLater?: PlugLater,
  ): Promise<Endpoint> {
    const { taps, resolvers } = this.#host;
    const resolv = resolvers.read(
      this.#predefined ? undefined : this.#nameserver,
    );
    this.#endpoints.refuseTwice(container, this.name);
    if (!request.again) this.check(request);
    this.#dropUnclaimed(container.id);
    const lease = this.#lease(request);
    const { tap } = request;
    const device =
      tap ?? taps.nameFor(container.id, this.#predefined ? undefined : this.id);
    const endpoint = this.#endpoint(lease, device, request);
    Object.assign(endpoint, resolv);
    if (this.#nameServer) endpoint.named = true;
    // Known from now on: a second attach is refused and removeOrphans leaves the tap alone.
    this.#add(container, endpoint, request);
    const plug = () =>
      this.#plug(container, endpoint, device, tap !== undefined);
    if (plugLater) plugLater(plug);
    else await plug();
    this.#save();
    return endpoint;
  }

  /** @throws {Unavailable} the host refused; then the endpoint is taken back */
  async #plug(
    container: ContainerNames,
    endpoint: Endpoint,
    device: string,
    spare: boolean,
  ): Promise<void> {
    const { taps, guests, spareTaps } = this.#host;
    if (this.#endpoints.get(container.id) !== endpoint) {
      throw new Unavailable(
        `container ${container.id} is not on network ${this.name} any more`,
      );
    }
    try {
      await Promise.all([
        guests.admit(device, guestOf(endpoint)),
        taps.plug(device, this.#socket, spare),
      ]);
    } catch (error) {
      this.#remove(container.id);
      if (spare) spareTaps.add(device);
      void this.#dismiss(device);
      throw refusal(error);
    }
  }

  async detach(containerId: string, keepTap = false): Promise<boolean> {
    this.#dropUnclaimed(containerId);
    const endpoint = this.#remove(containerId);
    if (!endpoint) return false;
    this.#save();
    if (endpoint.nic?.kind !== "tap") return true;
    const { device } = endpoint.nic;
    if (keepTap) {
      this.#host.spareTaps.add(device);
      await this.#host.taps.unplug(device);
    } else {
      this.#host.taps.remove(device);
    }
    const dismissed = this.#dismiss(device);
    if (keepTap) await dismissed;
    return true;
  }

  rename(container: ContainerNames): void {
    this.#endpoints.rename(container);
    const endpoint = this.#endpoints.get(container.id);
    const request = this.#requests.get(container.id);
    if (endpoint && request) this.#name(container, endpoint, request);
  }

  restore(
    container: ContainerNames,
    endpoint: Endpoint,
    request: AttachRequest,
  ): void {
    this.#dropUnclaimed(container.id);
    for (const [side, address] of [
      [this.#ipv4, endpoint.ipAddress],
      [this.#ipv6, endpoint.ipv6Address],
    ] as const) {
      if (address && !side?.pool.reserve(address)) {
        this.#host.log.warn(
          { container: container.id, address },
          side && contains(side.pool.subnet, parseAddress(address))
            ? "a running container's address is in use twice"
            : "a running container's address is not in its network's subnet any more",
        );
      }
    }
    this.#add(container, endpoint, request);
    if (endpoint.nic?.kind === "tap") {
      this.#host.guests.note(endpoint.nic.device, guestOf(endpoint));
    }
    this.#save();
  }

  async removeOrphans(): Promise<void> {
    for (const containerId of [...this.#unclaimed.keys()]) {
      this.#dropUnclaimed(containerId);
    }
    this.#save();
    await Promise.resolve();
  }

  async close(): Promise<void> {
    await this.#nameServer?.close();
    await this.#options.file.flush();
  }

  get #predefined(): boolean {
    return this.#options.record.spec === undefined;
  }

  get #nameserver(): string | undefined {
    return this.#ipv4?.gateway ?? this.#ipv6?.gateway;
  }

  get #socket() {
    const { bridge, mtu, icc } = this.#options;
    return { bridge, mtu, isolated: !icc };
  }

  #gateway(side: Side | undefined): string[] {
    return side ? [`${side.gateway}/${side.pool.subnet.prefix}`] : [];
  }

  /** @throws {Forbidden} the address is taken @throws {Unavailable} none is free */
  #lease(request: AttachRequest): Lease {
    const take = (side: Side | undefined, wanted: string | undefined) => {
      if (!side) return undefined;
      if (wanted) {
        const address = canonical(wanted);
        if (side.pool.reserve(address)) return address;
        throw new Forbidden("Address already in use");
      }
      const address = side.pool.allocate();
      if (address !== undefined) return address;
      throw new Unavailable(
        `no available IPv${side.pool.subnet.family} addresses on this network's address pools: ${this.name} (${this.id})`,
      );
    };
    const ipv4 = take(this.#ipv4, request.ipv4Address);
    try {
      return { ipv4, ipv6: take(this.#ipv6, request.ipv6Address) };
    } catch (error) {
      this.#release({ ipv4 });
      throw error;
    }
  }

  #release({ ipv4, ipv6 }: Lease): void {
    if (ipv4) this.#ipv4?.pool.release(ipv4);
    if (ipv6) this.#ipv6?.pool.release(ipv6);
  }

  #endpoint(
    { ipv4, ipv6 }: Lease,
    device: string,
    request: AttachRequest,
  ): Endpoint {
    const mac =
      request.macAddress?.toLowerCase() ?? macOf(ipv4 ?? ipv6 ?? "::");
    const gateways = this.#rules.internal
      ? []
      : [this.#ipv4, this.#ipv6].flatMap((side) => side?.gateway ?? []);
    const cidr = (side: Side | undefined, address: string | undefined) =>
      side && address ? [`${address}/${side.pool.subnet.prefix}`] : [];
    const outward = this.#rules.internal ? undefined : this.#ipv4?.gateway;
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
        addresses: [...cidr(this.#ipv4, ipv4), ...cidr(this.#ipv6, ipv6)],
        gateways,
      },
      ipAddress: ipv4 ?? "",
      ipPrefixLen: this.#ipv4?.pool.subnet.prefix ?? 0,
      gateway: outward ?? "",
      ...(ipv6 &&
        this.#ipv6 && {
          ipv6Address: ipv6,
          ipv6PrefixLen: this.#ipv6.pool.subnet.prefix,
          ipv6Gateway: this.#rules.internal ? "" : this.#ipv6.gateway,
        }),
      macAddress: mac,
      nameservers: [],
      search: [],
      dnsOptions: [],
    };
  }

  #add(
    container: ContainerNames,
    endpoint: Endpoint,
    request: AttachRequest,
  ): void {
    this.#endpoints.add(container, endpoint);
    if (endpoint.nic?.kind === "tap") {
      this.#host.spareTaps.delete(endpoint.nic.device);
      this.#host.pluggedTaps.add(endpoint.nic.device);
    }
    this.#requests.set(container.id, request);
    this.#name(container, endpoint, request);
  }

  #name(
    container: ContainerNames,
    endpoint: Endpoint,
    request: AttachRequest,
  ): void {
    if (container.dns?.length) {
      this.#host.dns.set(container.id, container.dns);
    }
    this.#host.names.set({
      containerId: container.id,
      networkId: this.id,
      networkName: this.name,
      names: this.#predefined ? [] : dnsNames(container, request.aliases),
      addresses: [endpoint.ipAddress, endpoint.ipv6Address ?? ""].filter(
        Boolean,
      ),
      links: request.links ?? {},
      outward: !this.#rules.internal,
    });
  }

  #remove(containerId: string): Endpoint | undefined {
    const endpoint = this.#endpoints.remove(containerId);
    this.#requests.delete(containerId);
    this.#host.names.remove(containerId, this.id);
    if (endpoint?.nic?.kind === "tap") {
      this.#host.pluggedTaps.delete(endpoint.nic.device);
    }
    if (endpoint) {
      this.#release({ ipv4: endpoint.ipAddress, ipv6: endpoint.ipv6Address });
    }
    return endpoint;
  }

  async #dismiss(device: string): Promise<void> {
    try {
      await this.#host.guests.dismiss(device);
    } catch (error) {
      this.#host.log.warn(
        { err: error, device },
        "cannot remove rules of a tap",
      );
    }
  }

  #dropUnclaimed(containerId: string): void {
    const lease = this.#unclaimed.get(containerId);
    if (lease) {
      this.#unclaimed.delete(containerId);
      this.#release(lease);
    }
  }

  #save(): void {
    const claimed = this.#endpoints.ids().map((containerId) => {
      const endpoint = this.#endpoints.get(containerId);
      return leaseRecord(containerId, {
        ipv4: endpoint?.ipAddress,
        ipv6: endpoint?.ipv6Address,
      });
    });
    const unclaimed = [...this.#unclaimed].map(([containerId, lease]) =>
      leaseRecord(containerId, lease),
    );
    this.#options.file.save({
      ...this.#options.record,
      ...(this.#ipv4 && { lastAddress: this.#ipv4.pool.last }),
      ...(this.#ipv6 && { lastAddress6: this.#ipv6.pool.last }),
      leases: [...claimed, ...unclaimed],
    });
  }
}

function leaseRecord(containerId: string, { ipv4, ipv6 }: Lease) {
  return {
    containerId,
    ...(ipv4 && { address: ipv4 }),
    ...(ipv6 && { address6: ipv6 }),
  };
}

function guestOf({ macAddress, ipAddress, ipv6Address }: Endpoint) {
  return {
    mac: macAddress,
    addresses: [ipAddress, ipv6Address ?? ""].filter(Boolean),
  };
}
