/** What the container service knows of networks. */
import type { InterfaceSetup } from "../../protocol/index.js";
import type { Nic } from "../hypervisor/index.js";

export interface NetworkService {
  /**
   * Gives a container an endpoint: address lease, MAC, and the host's end of the cable.
   * @throws {NotFound} no such network
   * @throws {Unavailable} the host refused (no root, no tun device), saying what is missing
   */
  attach(container: ContainerNames, network: string): Promise<Endpoint>;
  /** Gives back all of a container's endpoints. Never throws for what is already gone. */
  detach(containerId: string): Promise<void>;
  /** A restarted daemon keeps the leases of running containers. */
  restore(containerId: string, endpoint: Endpoint): Promise<void>;
}

export interface ContainerNames {
  id: string;
  /** Without the leading slash. */
  name: string;
  hostname: string;
}

/** One container's place in one network; plain JSON, kept in the container's record. */
export interface Endpoint {
  network: string;
  networkId: string;
  endpointId: string;
  nic: Nic;
  /** Handed to the agent as it is. */
  interface: InterfaceSetup;
  /** Bare IPv4 address, prefix length, gateway; for `inspect`. */
  ipAddress: string;
  ipPrefixLen: number;
  gateway: string;
  macAddress: string;
  /** Resolvers for /etc/resolv.conf. */
  nameservers: string[];
  search: string[];
}
