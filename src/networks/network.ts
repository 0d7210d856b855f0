/** One network, whatever carries it. The service finds networks by name; networks know their drivers. */
import type {
  AttachRequest,
  ContainerNames,
  Endpoint,
  NetworkInfo,
  PlugLater,
} from "./index.js";

export interface Network {
  readonly id: string;
  readonly name: string;
  info(): NetworkInfo;
  /**
   * Gives a container its endpoint.
   * @param plugLater see `NetworkService.attach`
   * @throws {Forbidden} it has one already, or another one has the address
   * @throws {Unavailable} no address is free, or the host refused
   */
  attach(
    container: ContainerNames,
    request: AttachRequest,
    plugLater?: PlugLater,
  ): Promise<Endpoint>;
  /**
   * Takes a container's endpoint back, if it has one.
   * @param keepTap the machine goes on running, with a tap that is then on no network
   * @returns whether it had one
   */
  detach(containerId: string, keepTap?: boolean): Promise<boolean>;
  rename(container: ContainerNames): void;
  /** @throws {InvalidParameter} the network cannot give what a container asks for */
  check(request: AttachRequest): void;
  /** Takes note of an endpoint that an earlier daemon gave. */
  restore(
    container: ContainerNames,
    endpoint: Endpoint,
    request: AttachRequest,
  ): void;
  /** Takes back what was neither restored nor attached. */
  removeOrphans(): Promise<void>;
  /** Finishes what is under way. Running containers keep their endpoints. */
  close(): Promise<void>;
}
