/** Who is on a network. */
import { Forbidden } from "../errors.js";
import type { ContainerNames, Endpoint, EndpointInfo } from "./index.js";

interface Member {
  containerName: string;
  endpoint: Endpoint;
}

export class Endpoints {
  readonly #members = new Map<string, Member>();

  add(container: ContainerNames, endpoint: Endpoint): void {
    this.#members.set(container.id, {
      containerName: container.name,
      endpoint,
    });
  }

  remove(containerId: string): Endpoint | undefined {
    const member = this.#members.get(containerId);
    this.#members.delete(containerId);
    return member?.endpoint;
  }

  /** @throws {Forbidden} the container is on the network already */
  refuseTwice(container: ContainerNames, network: string): void {
    if (this.#members.has(container.id)) {
      throw new Forbidden(
        `endpoint with name ${container.name} already exists in network ${network}`,
      );
    }
  }

  rename(container: ContainerNames): void {
    const member = this.#members.get(container.id);
    if (member) member.containerName = container.name;
  }

  get(containerId: string): Endpoint | undefined {
    return this.#members.get(containerId)?.endpoint;
  }

  all(): Endpoint[] {
    return [...this.#members.values()].map((member) => member.endpoint);
  }

  ids(): string[] {
    return [...this.#members.keys()];
  }

  info(): EndpointInfo[] {
    return [...this.#members].map(
      ([containerId, { containerName, endpoint }]) => ({
        containerId,
        containerName,
        endpointId: endpoint.endpointId,
        macAddress: endpoint.macAddress,
        ipv4Address: endpoint.ipAddress
          ? `${endpoint.ipAddress}/${endpoint.ipPrefixLen}`
          : "",
        ipv6Address: endpoint.ipv6Address
          ? `${endpoint.ipv6Address}/${endpoint.ipv6PrefixLen}`
          : "",
      }),
    );
  }
}
