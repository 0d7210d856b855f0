/** One network, whatever carries it. The service finds networks by name; networks know their drivers. */
import type {
  AttachRequest,
  ContainerNames,
  Endpoint,
  NetworkInfo,
} from "./index.js";

export interface Network {
  readonly id: string;
  readonly name: string;
  info(): NetworkInfo;
  /**
   * Gives a container its endpoint.
   * @throws {Conflict} it has one already
   * @throws {Unavailable} no address is free, or the host refused
   */
  attach(container: ContainerNames, request: AttachRequest): Promise<Endpoint>;
  /** Takes a container's endpoint back, if it has one. */
  detach(containerId: string): Promise<void>;
  /** Takes note of an endpoint that an earlier daemon gave. */
  restore(container: ContainerNames, endpoint: Endpoint): void;
  /** Where the network has taps: see NetworkService. */
  readonly taps?: Taps;
  /** Takes back what was neither restored nor attached. */
  removeOrphans(): Promise<void>;
  /** Finishes what is under way. Running containers keep their endpoints. */
  close(): Promise<void>;
}

/** Taps that are on no network. */
export interface Taps {
  /** @throws {Unavailable} the host refused */
  create(): Promise<string>;
  /** Deletes one in the background. */
  discard(device: string): void;
  /** Takes note of one that an earlier daemon made. */
  restore(device: string): void;
}
