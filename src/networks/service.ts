/** The networks of a daemon. */
import { access, constants, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "pino";
import {
  Conflict,
  Forbidden,
  InvalidParameter,
  NotFound,
  SystemError,
  Unavailable,
} from "../errors.js";
import type { EventBus } from "../events.js";
import { faultPoint } from "../fault.js";
import { BridgeNetwork } from "./bridge-network.js";
import { hasTool } from "./command.js";
import {
  type CreateNetworkRequest,
  invalidBridgeName,
  isBridgeName,
  isMtu,
  networkSpec,
} from "./create-request.js";
import { openDefaultNetwork } from "./default-network.js";
import { Firewall } from "./firewall.js";
import { checkAddresses } from "./endpoint-request.js";
import { type HostNetwork, recordFile, refusal } from "./host-network.js";
import type {
  AttachRequest,
  ContainerNames,
  Endpoint,
  NetworkInfo,
  NetworkService,
  PlugLater,
} from "./index.js";
import type { Network } from "./network.js";
import { NoneNetwork } from "./none-network.js";
import { Ports } from "./ports.js";
import { Resolvers, type ResolverSettings } from "./resolvers.js";
import {
  createUserNetwork,
  noUserNetworks,
  readUserNetworks,
  reopenUserNetwork,
  subnetsOf,
} from "./user-networks.js";
import { UserNetwork } from "./user-network.js";

export interface NetworkOptions extends ResolverSettings {
  /** Where the networks' records are kept. */
  directory: string;
  /** What carries the network `bridge`; `auto` takes the bridge where the host allows it. */
  driver: "auto" | "bridge" | "user";
  /** Name of the Linux bridge and of the nftables tables; another one for each daemon of a host. */
  bridge: string;
  /** The host's address on the bridge with prefix length; absent: chosen so that it collides with no route. */
  bridgeAddress?: string | undefined;
  mtu: number;
  events: EventBus;
  log: Logger;
}

const DEFAULT = "bridge";
/** What a record of `none`, which needs no host's part, is kept as. */
const NONE = "none";

export class Networks implements NetworkService {
  readonly #options: NetworkOptions;
  readonly #networks: Network[];
  /** Absent in user mode. */
  readonly #host: HostNetwork | undefined;
  /** Networks are made and removed one at a time, since their subnets must not overlap. */
  #turn: Promise<unknown> = Promise.resolve();

  /**
   * Makes or takes over the daemon's networks, with the driver's choice and its reason in the log.
   * @throws {InvalidParameter} an option is impossible
   * @throws {Unavailable} driver `bridge` was asked for and cannot be had
   */
  static async open(options: NetworkOptions): Promise<Networks> {
    if (!isBridgeName(options.bridge)) {
      throw new InvalidParameter(invalidBridgeName(options.bridge));
    }
    if (!isMtu(options.mtu)) {
      throw new InvalidParameter(`invalid MTU ${options.mtu}: 576 to 65535`);
    }
    const { directory, log, mtu } = options;
    const resolvers = new Resolvers(options);
    const firewall = new Firewall(options.bridge);
    // What was published is in the first rules that are written, before any container is found again.
    const ports = await Ports.open({
      file: join(directory, "ports.json"),
      firewall,
      log,
    });
    const { network, host } = await openDefault(options, resolvers, firewall);
    const file = recordFile(directory, NONE, log);
    const record = await file.load(NONE);
    file.save(record);
    await file.flush();
    const networks = [network, new NoneNetwork(record, resolvers)];
    if (host) {
      for (const one of await readUserNetworks(directory, log)) {
        networks.push(await reopenUserNetwork(one, { directory, host, mtu }));
      }
    }
    return new Networks(options, networks, host, ports);
  }

  private constructor(
    options: NetworkOptions,
    networks: Network[],
    host: HostNetwork | undefined,
    readonly ports: Ports,
  ) {
    this.#options = options;
    this.#networks = networks;
    this.#host = host;
  }

  check(network: string): void {
    if (network === "host") {
      throw new InvalidParameter(
        "network mode host is not supported: a container is a virtual machine, which has no network namespace of the host to share",
      );
    }
    if (network.startsWith("container:")) {
      throw new InvalidParameter(
        `network mode ${network} is not supported: a container is a virtual machine, which cannot share another one's network namespace`,
      );
    }
  }

  checkRequest(request: AttachRequest): NetworkInfo | undefined {
    this.check(request.network);
    let network: Network;
    try {
      network = this.#find(request.network);
    } catch (error) {
      if (!(error instanceof NotFound)) throw error;
      checkAddresses(request);
      return undefined;
    }
    network.check(request);
    return network.info();
  }

  async attach(
    container: ContainerNames,
    request: AttachRequest,
    plugLater?: PlugLater,
  ): Promise<Endpoint> {
    this.check(request.network);
    const network = this.#find(request.network);
    const endpoint = await network.attach(container, request, plugLater);
    this.#tell("connect", network, { container: container.id });
    return endpoint;
  }

  async withdraw(containerId: string): Promise<void> {
    this.#host?.names.forget(containerId);
    await this.ports.unpublish(containerId);
  }

  async detach(containerId: string): Promise<void> {
    await this.withdraw(containerId);
    for (const network of this.#networks) {
      if (await network.detach(containerId)) {
        this.#tell("disconnect", network, { container: containerId });
      }
    }
    this.#host?.dns.delete(containerId);
  }

  async disconnect(containerId: string, reference: string): Promise<void> {
    const network = this.#find(reference);
    let there: boolean;
    try {
      there = await network.detach(containerId, true);
    } catch (error) {
      throw refusal(error);
    }
    if (!there) {
      throw new SystemError(
        `container ${containerId} is not connected to network ${network.name}`,
      );
    }
    this.#tell("disconnect", network, { container: containerId });
  }

  rename(container: ContainerNames): void {
    for (const network of this.#networks) network.rename(container);
  }

  async restore(
    container: ContainerNames,
    endpoint: Endpoint,
    request: AttachRequest,
  ): Promise<void> {
    const network =
      this.#networks.find(({ id }) => id === endpoint.networkId) ??
      this.#networks.find(({ name }) => name === endpoint.network);
    network?.restore(container, endpoint, request);
    await Promise.resolve();
  }

  async removeOrphans(): Promise<void> {
    await this.ports.removeOrphans();
    await Promise.all(this.#networks.map((network) => network.removeOrphans()));
    const host = this.#host;
    if (!host) return;
    await host.guests.reset();
    await host.taps.removeOthers(
      () => new Set([...host.pluggedTaps, ...host.spareTaps]),
    );
  }

  async createTap(): Promise<string | undefined> {
    return this.#host?.createTap();
  }

  discardTap(device: string): void {
    this.#host?.discardTap(device);
  }

  restoreTap(device: string): void {
    this.#host?.spareTaps.add(device);
  }

  create(request: CreateNetworkRequest): Promise<NetworkInfo> {
    const { name } = networkSpec(request);
    return this.#exclusive(async () => {
      if (this.#networks.some((network) => network.name === name)) {
        throw new Conflict(`network with name ${name} already exists`);
      }
      const host = this.#host;
      if (!host) throw noUserNetworks();
      const { directory, mtu } = this.#options;
      const network = await createUserNetwork(request, this.#bridges, {
        directory,
        host,
        mtu,
      });
      this.#networks.push(network);
      this.#tell("create", network);
      return network.info();
    });
  }

  remove(reference: string): Promise<void> {
    return this.#exclusive(async () => {
      const network = this.#find(reference);
      const { predefined, endpoints } = network.info();
      if (predefined || !(network instanceof BridgeNetwork)) {
        throw new Forbidden(
          `${network.name} is a pre-defined network and cannot be removed`,
        );
      }
      if (endpoints.length > 0) {
        const users = endpoints.map(
          ({ containerName, endpointId }) =>
            `name:"${containerName}" id:"${endpointId.slice(0, 12)}"`,
        );
        throw new Forbidden(
          `error while removing network: network ${network.name} has active endpoints (${users.join(", ")})`,
        );
      }
      // From now on nobody finds it.
      this.#networks.splice(this.#networks.indexOf(network), 1);
      try {
        await network.down();
        faultPoint("network-rm.down");
        await network.forget();
        faultPoint("network-rm.gone");
      } catch (error) {
        this.#networks.push(network);
        throw error;
      }
      this.#tell("destroy", network);
    });
  }

  list(): NetworkInfo[] {
    return this.#networks.map((network) => network.info());
  }

  get(reference: string): NetworkInfo {
    return this.#find(reference).info();
  }

  /** To be called when the daemon ends. Running containers keep their network. */
  async close(): Promise<void> {
    await this.#turn;
    await this.ports.close();
    await Promise.all(this.#networks.map((network) => network.close()));
    await this.#host?.close();
  }

  get #bridges(): BridgeNetwork[] {
    return this.#networks.filter((one) => one instanceof BridgeNetwork);
  }

  #exclusive<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(change);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  #tell(
    action: string,
    network: Network,
    attributes: Record<string, string> = {},
  ): void {
    const type = network.info().driver;
    this.#options.events.publish({
      Type: "network",
      Action: action,
      Actor: {
        ID: network.id,
        Attributes: { ...attributes, name: network.name, type },
      },
    });
  }

  #find(given: string): Network {
    const reference = given === "default" ? DEFAULT : given;
    const exact =
      this.#networks.find(({ id }) => id === reference) ??
      this.#networks.find(({ name }) => name === reference);
    if (exact) {
      return exact;
    }
    const matches = reference
      ? this.#networks.filter(({ id }) => id.startsWith(reference))
      : [];
    if (matches.length > 1) {
      throw new InvalidParameter(
        `network ${reference} is ambiguous (${matches.length} matches found on ID prefix)`,
      );
    }
    if (!matches[0]) {
      throw new NotFound(`network ${reference} not found`);
    }
    return matches[0];
  }
}

/** The network `bridge`, on the driver that was asked for or the best the host allows. */
async function openDefault(
  options: NetworkOptions,
  resolvers: Resolvers,
  firewall: Firewall,
): Promise<{ network: Network; host?: HostNetwork }> {
  const { directory, log } = options;
  let reason = "the configuration asks for it";
  if (options.driver !== "user") {
    try {
      const lacks = await missing();
      if (lacks) {
        throw new Unavailable(lacks);
      }
      const user = await readUserNetworks(directory, log);
      const opened = await openDefaultNetwork({
        directory,
        bridge: options.bridge,
        address: options.bridgeAddress,
        mtu: options.mtu,
        used: subnetsOf(user.map(({ record }) => record)),
        resolvers,
        firewall,
        log,
      });
      const { subnets } = opened.network.info();
      log.info(
        { bridge: options.bridge, subnet: subnets[0]?.subnet },
        "network driver: bridge and tap devices",
      );
      return opened;
    } catch (error) {
      const refused =
        error instanceof Unavailable || error instanceof SystemError;
      if (!refused) {
        throw error;
      }
      if (options.driver === "bridge") {
        throw new Unavailable(
          `the network driver bridge cannot be used: ${error.message}`,
          { cause: error },
        );
      }
      reason = error.message;
    }
  }
  log.warn(
    { reason },
    "network driver: user mode; containers reach the outside, but not each other, and nobody reaches them",
  );
  const file = recordFile(directory, "user", log);
  const record = await file.load(DEFAULT);
  file.save(record);
  await file.flush();
  return { network: new UserNetwork(record, resolvers) };
}

/** What the bridge driver needs and this host or user lacks, in words. */
async function missing(): Promise<string | undefined> {
  if (!(await hasNetAdmin())) {
    return "not root (no CAP_NET_ADMIN)";
  }
  try {
    await access("/dev/net/tun", constants.R_OK | constants.W_OK);
  } catch {
    return "/dev/net/tun is not there or may not be opened";
  }
  for (const tool of ["ip", "nft"]) {
    if (!(await hasTool(tool))) {
      return `the program ${tool} is not installed`;
    }
  }
  return undefined;
}

async function hasNetAdmin(): Promise<boolean> {
  const CAP_NET_ADMIN = 12n;
  const status = await readFile("/proc/self/status", "utf8");
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0";
  return ((BigInt(`0x${effective}`) >> CAP_NET_ADMIN) & 1n) === 1n;
}
