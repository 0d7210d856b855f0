/** What the container service and the API know of networks. */
import type { InterfaceSetup } from "../../protocol/index.js";
import type { Nic } from "../hypervisor/index.js";
import type { CreateNetworkRequest } from "./create-request.js";

/** Takes what puts the cable in: to be called once, unless the endpoint is given back before. */
export type PlugLater = (plug: () => Promise<void>) => void;

export interface NetworkService {
  /**
   * Whether a container may be made with this network mode. An unknown name is no error here: as in
   * Docker it is one when the container starts.
   * @throws {InvalidParameter} `host` and `container:…`, which a virtual machine cannot have
   */
  check(network: string): void;
  /**
   * Gives a container an endpoint: address lease, MAC, and the host's end of the cable. `default` means
   * the network `bridge`, `none` gives an endpoint without a NIC.
   * @param plugLater takes what is left to do when the endpoint is known: putting the cable in. That rejects as
   *   `attach` does without it. For who has other things to do before
   * @throws {NotFound} no such network
   * @throws {InvalidParameter} as `check`
   * @throws {Forbidden} the container is on the network already, or another one has the address
   * @throws {Unavailable} the host refused (no root, no tun device, no free address), saying what is missing
   */
  attach(
    container: ContainerNames,
    request: AttachRequest,
    plugLater?: PlugLater,
  ): Promise<Endpoint>;
  /**
   * Takes back what others find a container by, its names and its published ports: its process has ended.
   * Never throws.
   */
  withdraw(containerId: string): Promise<void>;
  /**
   * Gives back all of a container's endpoints, after its machine has ended. Never throws for what is
   * already gone. The host's end of the cable is taken down later, in the background.
   */
  detach(containerId: string): Promise<void>;
  /** A restarted daemon keeps the leases of running containers. */
  restore(
    container: ContainerNames,
    endpoint: Endpoint,
    request: AttachRequest,
  ): Promise<void>;
  /**
   * To be called once after every running container was restored: takes back the leases and the taps
   * that no container claimed.
   */
  removeOrphans(): Promise<void>;
  /**
   * Makes a tap that is on no network yet, for a machine that is to have one before its container has a
   * network: `attach` plugs it in, and `detach` then removes it. Until then nothing passes through it.
   * @returns its name; undefined where machines have no taps (user mode)
   * @throws {Unavailable} the host refused
   */
  createTap(): Promise<string | undefined>;
  /** Takes back a tap of `createTap` that is on no network, in the background; leaves any other alone. */
  discardTap(device: string): void;
  /** As `restore`, for a tap of a running machine that is on no network: removeOrphans leaves it alone. */
  restoreTap(device: string): void;
  readonly ports: PortService;
  /**
   * Takes one of a running container's endpoints back. Its tap stays, on no network.
   * @throws {NotFound} no such network
   * @throws {SystemError} it is not on the network, or the kernel refused
   */
  disconnect(containerId: string, network: string): Promise<void>;
  /** A running container got another name. */
  rename(container: ContainerNames): void;
  /**
   * Checks what a container asks of a network, as far as it can be known before it starts.
   * @returns the network, or undefined where there is none of that name (yet)
   * @throws {InvalidParameter} in Docker's words
   */
  checkRequest(request: AttachRequest): NetworkInfo | undefined;
  /**
   * Makes a network, to stay until it is removed.
   * @throws {InvalidParameter} a value that cannot be
   * @throws {Forbidden} a predefined name, or a subnet that overlaps with another network's
   * @throws {Conflict} the name is taken
   * @throws {Unavailable} networks cannot be made here (user mode), or the host refused
   */
  create(request: CreateNetworkRequest): Promise<NetworkInfo>;
  /**
   * Removes a network with all that belongs to it.
   * @throws {NotFound} no such network
   * @throws {Forbidden} it is always there, or containers are on it
   */
  remove(reference: string): Promise<void>;
  list(): NetworkInfo[];
  /**
   * @param reference a network's ID, name or unambiguous ID prefix
   * @throws {NotFound} "network … not found"
   */
  get(reference: string): NetworkInfo;
}

/** What a container asks of one network; plain JSON, kept in the container's record (without `tap`). */
export interface AttachRequest {
  /** A network's name or ID; `default` means the network `bridge`. */
  network: string;
  /** Addresses of the network's subnets; chosen where absent. */
  ipv4Address?: string;
  ipv6Address?: string;
  /** Names by which others on the network find the container, beside its own. */
  aliases?: string[];
  /** Names by which this container finds others: name → the other's own name. */
  links?: Record<string, string>;
  /** Chosen where absent. */
  macAddress?: string;
  /** A tap of `createTap` to plug in, instead of making one. */
  tap?: string;
  /** The addresses are those of an endpoint before, on any kind of network: nobody has chosen them. */
  again?: boolean;
}

/** Published ports. They are a container's while it runs. */
export interface PortService {
  /**
   * Makes ports of a container reachable at the host, by way of the first of its endpoints that leads
   * outside; a container without one has nothing published.
   * @throws {SystemError} a port is taken, or the host does not have the address; nothing is published
   */
  publish(
    container: ContainerNames,
    endpoints: Endpoint[],
    requests: PortRequest[],
  ): Promise<PublishedPort[]>;
  /** A restarted daemon keeps the ports of running containers. */
  restore(
    container: ContainerNames,
    endpoints: Endpoint[],
    ports: PublishedPort[],
  ): Promise<void>;
  /** Takes a container's ports back, if it has any; `detach` does so, too. Never throws. */
  unpublish(containerId: string): Promise<void>;
}

export type PortProtocol = "tcp" | "udp";

/** A port that a container wants to have at the host. */
export interface PortRequest {
  protocol: PortProtocol;
  /** The container's own port. */
  port: number;
  /** An address of the host; "" for all of them. */
  hostIp: string;
  /** The first free one of these is taken; 0 and 0: one of the host's ephemeral ports. */
  hostPorts: { first: number; last: number };
}

/** A port that a container has at the host; plain JSON, kept in the container's record. */
export interface PublishedPort {
  protocol: PortProtocol;
  port: number;
  /** "0.0.0.0" and "::" for all addresses of the family. */
  hostIp: string;
  hostPort: number;
}

export interface ContainerNames {
  id: string;
  /** Without the leading slash. */
  name: string;
  hostname: string;
  /** Resolvers of its own (--dns), asked instead of the host's. */
  dns?: string[];
}

/** One container's place in one network; plain JSON, kept in the container's record. */
export interface Endpoint {
  network: string;
  networkId: string;
  endpointId: string;
  /** Absent on the network `none`. */
  nic?: Nic;
  /** Handed to the agent as it is. Absent on the network `none`. */
  interface?: InterfaceSetup;
  /** Bare IPv4 address, prefix length, gateway; for `inspect`. "", 0 and "" on the network `none`. */
  ipAddress: string;
  ipPrefixLen: number;
  gateway: string;
  /** Likewise for IPv6; absent where the network has none. */
  ipv6Address?: string;
  ipv6PrefixLen?: number;
  ipv6Gateway?: string;
  /** "" on the network `none`. */
  macAddress: string;
  /** Resolvers for /etc/resolv.conf. */
  nameservers: string[];
  /** The resolver is hull's own name service, which knows the network's containers. */
  named?: boolean;
  search: string[];
  /** The `options` line of /etc/resolv.conf. */
  dnsOptions: string[];
}

/** A network as `docker network inspect` shows it. */
export interface NetworkInfo {
  id: string;
  name: string;
  /** "bridge", "null", or "user" where the network is QEMU's user-mode stack. */
  driver: string;
  /** ISO 8601. */
  created: string;
  /** One of the networks that are always there and cannot be removed. */
  predefined: boolean;
  internal: boolean;
  attachable: boolean;
  enableIPv4: boolean;
  enableIPv6: boolean;
  subnets: SubnetInfo[];
  ipamOptions?: Record<string, string>;
  options: Record<string, string>;
  labels: Record<string, string>;
  endpoints: EndpointInfo[];
}

export interface SubnetInfo {
  subnet: string;
  gateway: string;
  ipRange?: string;
  auxAddresses?: Record<string, string>;
}

export interface EndpointInfo {
  containerId: string;
  containerName: string;
  endpointId: string;
  macAddress: string;
  /** With prefix length; "" where there is none. */
  ipv4Address: string;
  ipv6Address: string;
}
