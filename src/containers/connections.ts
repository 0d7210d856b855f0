/** Connecting containers to networks and disconnecting them: `docker network connect` and `disconnect`. */
import { NIC_SLOTS } from "../hypervisor/index.js";
import type { Logger } from "pino";
import type { NetworkChange } from "../../protocol/index.js";
import {
  Conflict,
  Forbidden,
  HullError,
  InvalidParameter,
  SystemError,
} from "../errors.js";
import type { NetworkService } from "../networks/index.js";
import { defaultRoutes, freeSlot, namesOf, place } from "./attach-networks.js";
import type { Container } from "./container.js";
import { portRequests } from "./port-requests.js";
import { answerWithin, CHANGE_LIMIT } from "./run/within.js";
import { networkFiles } from "./network-files.js";
import { checkTogether } from "./network-requests.js";
import type { NetworkRequest } from "./record.js";

export class Connections {
  readonly #networks: NetworkService;
  readonly #log: Logger;

  constructor(networks: NetworkService, log: Logger) {
    this.#networks = networks;
    this.#log = log;
  }

  /**
   * @throws {NotFound} no such network
   * @throws {InvalidParameter} what is asked of the network cannot be
   * @throws {Forbidden} it runs and is on the network already
   * @throws {Conflict} its machine has no NIC left, or it is paused or being removed
   */
  connect(container: Container, request: NetworkRequest): Promise<void> {
    return container.exclusive(async () => {
      const { record } = container;
      checkState(container);
      this.#networks.check(request.network);
      const { name, id } = this.#networks.get(request.network);
      this.#networks.checkRequest(request);
      const wanted: NetworkRequest = {
        ...request,
        network: name,
        networkId: id,
      };
      const present = record.networks.some(({ network }) => is(network, name));
      if (present && !container.isRunning) return;
      if (present) {
        throw new Forbidden(
          `endpoint with name ${record.name} already exists in network ${name}`,
        );
      }
      const all = [...record.networks.map(({ network }) => network), name];
      checkTogether(all);
      if (container.isRunning) await this.#plug(container, wanted);
      record.networks.push(wanted);
      await this.#publishAnew(container);
      await container.save();
    });
  }

  /**
   * @throws {NotFound} no such network
   * @throws {SystemError} it is not on the network
   * @throws {Conflict} it is paused or being removed
   */
  disconnect(
    container: Container,
    network: string,
    force: boolean,
  ): Promise<void> {
    return container.exclusive(async () => {
      const { record } = container;
      checkState(container);
      const name = this.#nameOf(container, network, force);
      const at = record.networks.findIndex((one) => is(one.network, name));
      if (at < 0) {
        throw new SystemError(
          `container ${record.id} is not connected to network ${name}`,
        );
      }
      if (container.isRunning) await this.#unplug(container, name);
      record.networks.splice(at, 1);
      await this.#publishAnew(container);
      await container.save();
    });
  }

  /** A container may be on a network that is gone. */
  #nameOf(container: Container, network: string, force: boolean): string {
    try {
      return this.#networks.get(network).name;
    } catch (error) {
      const { networks } = container.record;
      const own = networks.find(
        (one) => one.network === network || one.networkId === network,
      );
      if (own && (force || !container.isRunning)) return own.network;
      throw error;
    }
  }

  async #plug(container: Container, request: NetworkRequest): Promise<void> {
    const { record } = container;
    const slot = freeSlot(record);
    const tap = slot === undefined ? undefined : record.taps?.[slot];
    if (slot === undefined || tap === undefined) {
      throw new Conflict(
        `container ${record.name} cannot be connected to network ${request.network} while it runs: its machine has ${record.taps?.length ?? 0} network interfaces, all of them in use. It takes ${NIC_SLOTS} networks at most; stop it, or disconnect it from another network first`,
      );
    }
    const endpoint = await this.#networks.attach(namesOf(record), {
      ...request,
      tap,
    });
    place(endpoint.interface, slot);
    record.endpoints.push(endpoint);
    record.networks.push(request);
    try {
      await this.#tell(container, {
        add: endpoint.interface ? [endpoint.interface] : [],
      });
    } catch (error) {
      record.endpoints.pop();
      await this.#networks.disconnect(record.id, request.network);
      throw error;
    } finally {
      record.networks.pop();
    }
  }

  async #unplug(container: Container, name: string): Promise<void> {
    const { record } = container;
    const at = record.endpoints.findIndex(({ network }) => network === name);
    const [endpoint] = at < 0 ? [] : record.endpoints.splice(at, 1);
    if (!endpoint) return;
    const { interface: setup } = endpoint;
    if (setup) {
      const { index, addresses } = setup;
      try {
        await this.#tell(container, { remove: [{ index, addresses }] });
      } catch (error) {
        if (!(error instanceof HullError)) throw error;
        // The guest may have changed its interface by itself; the cable is pulled in any case.
        this.#log.warn(
          { err: error, container: record.id },
          "the guest could not take an interface down",
        );
      }
    }
    await this.#networks.disconnect(record.id, name);
  }

  /** Ports are published by way of one network, which may be another one now. */
  async #publishAnew(container: Container): Promise<void> {
    const { record } = container;
    const requests = portRequests(record);
    if (!container.isRunning || requests.length === 0) return;
    const { ports } = this.#networks;
    await ports.unpublish(record.id);
    record.ports = [];
    record.ports = await ports.publish(
      namesOf(record),
      record.endpoints,
      requests,
    );
  }

  async #tell(
    container: Container,
    change: Partial<NetworkChange>,
  ): Promise<void> {
    const { machine, record } = container;
    if (!machine) return;
    await answerWithin(
      machine.agent.request("network", {
        add: [],
        remove: [],
        ...change,
        routes: defaultRoutes(record),
        files: networkFiles(record),
      }),
      "network",
      CHANGE_LIMIT,
    );
  }
}

function checkState({ record }: Container): void {
  const { status } = record.state;
  if (status === "removing" || status === "dead") {
    throw new Conflict(
      `Container ${record.id} is marked for removal and cannot be connected or disconnected to the network`,
    );
  }
  if (status === "paused") {
    throw new Conflict(
      `Container ${record.id} is paused: unpause it before its networks are changed`,
    );
  }
  if (record.hostConfig.NetworkMode === "host") {
    throw new InvalidParameter(
      "container cannot be disconnected from host network or connected to host network",
    );
  }
}

/** A record made before its network was known by name may say `default`. */
function is(network: string, name: string): boolean {
  return (network === "default" ? "bridge" : network) === name;
}
