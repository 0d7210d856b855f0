/** One network, whatever carries it. The service finds networks by name; networks know their drivers. */
import type { ContainerNames, Endpoint, NetworkInfo } from "./index.js";

export interface Network {
  readonly id: string;
  readonly name: string;
  info(): NetworkInfo;
  /**
   * Gives a container its endpoint.
   * @throws {Conflict} it has one already
   * @throws {Unavailable} no address is free, or the host refused
   */
  attach(container: ContainerNames): Promise<Endpoint>;
  /** Takes a container's endpoint back, if it has one. */
  detach(containerId: string): Promise<void>;
  /** Takes note of an endpoint that an earlier daemon gave. */
  restore(container: ContainerNames, endpoint: Endpoint): void;
  /** Takes back what was neither restored nor attached. */
  removeOrphans(): Promise<void>;
  /** Finishes what is under way. Running containers keep their endpoints. */
  close(): Promise<void>;
}
