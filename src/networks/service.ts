/** The networks of a daemon. */
import { access, constants, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "pino";
import {
  InvalidParameter,
  NotFound,
  SystemError,
  Unavailable,
} from "../errors.js";
import { BridgeNetwork } from "./bridge-network.js";
import { hasTool } from "./command.js";
import type {
  AttachRequest,
  ContainerNames,
  Endpoint,
  NetworkInfo,
  NetworkService,
} from "./index.js";
import type { Network, Taps } from "./network.js";
import { Firewall } from "./firewall.js";
import { NoneNetwork } from "./none-network.js";
import { Ports } from "./ports.js";
import { RecordFile } from "./record.js";
import { Resolvers, type ResolverSettings } from "./resolvers.js";
import { UserNetwork } from "./user-network.js";

export interface NetworkOptions extends ResolverSettings {
  /** Where the networks' records are kept. */
  directory: string;
  /** What carries the network `bridge`; `auto` takes the bridge where the host allows it. */
  driver: "auto" | "bridge" | "user";
  /** Name of the Linux bridge and of the nftables table; another one for each daemon of a host. */
  bridge: string;
  /** The host's address on the bridge with prefix length; absent: chosen so that it collides with no route. */
  bridgeAddress?: string | undefined;
  mtu: number;
  log: Logger;
}

export class Networks implements NetworkService {
  readonly #networks: Network[];

  /**
   * Makes or takes over the daemon's networks, with the driver's choice and its reason in the log.
   * @throws {InvalidParameter} an option is impossible
   * @throws {Unavailable} driver `bridge` was asked for and cannot be had
   */
  static async open(options: NetworkOptions): Promise<Networks> {
    if (!/^[a-zA-Z][a-zA-Z0-9_.-]{0,14}$/.test(options.bridge)) {
      throw new InvalidParameter(
        `invalid bridge name ${JSON.stringify(options.bridge)}: 1 to 15 letters, digits, ".", "_" and "-", beginning with a letter`,
      );
    }
    if (
      !Number.isInteger(options.mtu) ||
      options.mtu < 576 ||
      options.mtu > 65535
    ) {
      throw new InvalidParameter(`invalid MTU ${options.mtu}: 576 to 65535`);
    }
    const resolvers = new Resolvers(options);
    const firewall = new Firewall(options.bridge);
    // What was published is in the first rules that are written, before any container is found again.
    const ports = await Ports.open({
      file: join(options.directory, "ports.json"),
      firewall,
      log: options.log,
    });
    const bridge = await openDefault(options, resolvers, firewall);
    const file = recordFile(options, "none");
    const record = await file.load("none");
    file.save(record);
    await file.flush();
    return new Networks([bridge, new NoneNetwork(record, resolvers)], ports);
  }

  private constructor(
    networks: Network[],
    readonly ports: Ports,
  ) {
    this.#networks = networks;
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

  async attach(
    container: ContainerNames,
    request: AttachRequest,
  ): Promise<Endpoint> {
    const { network } = request;
    this.check(network);
    return this.#find(network === "default" ? "bridge" : network).attach(
      container,
      request,
    );
  }

  async detach(containerId: string): Promise<void> {
    await this.ports.unpublish(containerId);
    await Promise.all(
      this.#networks.map((network) => network.detach(containerId)),
    );
  }

  async restore(container: ContainerNames, endpoint: Endpoint): Promise<void> {
    const network =
      this.#networks.find(({ id }) => id === endpoint.networkId) ??
      this.#networks.find(({ name }) => name === endpoint.network);
    network?.restore(container, endpoint);
  }

  async removeOrphans(): Promise<void> {
    await this.ports.removeOrphans();
    await Promise.all(this.#networks.map((network) => network.removeOrphans()));
  }

  async createTap(): Promise<string | undefined> {
    return this.#taps?.create();
  }

  discardTap(device: string): void {
    this.#taps?.discard(device);
  }

  restoreTap(device: string): void {
    this.#taps?.restore(device);
  }

  list(): NetworkInfo[] {
    return this.#networks.map((network) => network.info());
  }

  get(reference: string): NetworkInfo {
    return this.#find(reference).info();
  }

  /** To be called when the daemon ends. Running containers keep their network. */
  async close(): Promise<void> {
    await this.ports.close();
    await Promise.all(this.#networks.map((network) => network.close()));
  }

  get #taps(): Taps | undefined {
    return this.#networks.find(({ taps }) => taps)?.taps;
  }

  #find(reference: string): Network {
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

function recordFile(options: NetworkOptions, name: string): RecordFile {
  return new RecordFile(join(options.directory, `${name}.json`), options.log);
}

/** The network `bridge`, on the driver that was asked for or the best the host allows. */
async function openDefault(
  options: NetworkOptions,
  resolvers: Resolvers,
  firewall: Firewall,
): Promise<Network> {
  const { log } = options;
  let reason = "the configuration asks for it";
  if (options.driver !== "user") {
    try {
      const lacks = await missing();
      if (lacks) {
        throw new Unavailable(lacks);
      }
      const file = recordFile(options, "bridge");
      const network = await BridgeNetwork.open({
        record: await file.load("bridge"),
        file,
        resolvers,
        firewall,
        bridge: options.bridge,
        address: options.bridgeAddress,
        mtu: options.mtu,
        log,
      });
      log.info(
        { bridge: options.bridge, subnet: network.subnet },
        "network driver: bridge and tap devices",
      );
      return network;
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
  const file = recordFile(options, "user");
  const record = await file.load("bridge");
  file.save(record);
  await file.flush();
  return new UserNetwork(record, resolvers);
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
