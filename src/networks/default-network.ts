/** The network `bridge`: its subnet, and what of it was there before. */
import { InvalidParameter, Unavailable } from "../errors.js";
import { BridgeNetwork } from "./bridge-network.js";
import { runTool } from "./command.js";
import { warnOfForeignDrop } from "./firewall.js";
import {
  HostNetwork,
  recordFile,
  type HostNetworkOptions,
} from "./host-network.js";
import {
  type Address,
  formatAddress,
  nthAddress,
  parseAddress,
  parseInterface,
  type Subnet,
} from "./ip.js";
import type { NetworkRecord } from "./record.js";
import { chooseSubnet, collisions, type Route } from "./subnet-choice.js";

export interface DefaultNetworkOptions extends HostNetworkOptions {
  /** The host's address on the bridge with prefix length, e.g. "172.17.0.1/16"; chosen where absent. */
  address: string | undefined;
  mtu: number;
  /** Subnets of the networks that users made. */
  used: Subnet[];
}

/**
 * Makes the bridge, its address and its rules, or takes over the ones that are there.
 * @throws {InvalidParameter} the configured address is impossible
 * @throws {Unavailable} no subnet is free, or the name is taken
 * @throws {SystemError} the kernel refused, in its words
 */
export async function openDefaultNetwork(
  options: DefaultNetworkOptions,
): Promise<{ host: HostNetwork; network: BridgeNetwork }> {
  const { directory, bridge, mtu, log } = options;
  const file = recordFile(directory, "bridge", log);
  const record = await file.load("bridge");
  const host = await HostNetwork.open(options, record);
  try {
    const gateway = await chooseGateway(options, record);
    const network = new BridgeNetwork({
      record: { ...record, gateway },
      file,
      host,
      bridge,
      mtu,
      icc: true,
      masquerade: true,
      options: {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
        "com.docker.network.bridge.name": bridge,
        "com.docker.network.driver.mtu": String(mtu),
      },
    });
    await network.up(false);
    void warnOfForeignDrop(bridge, log);
    return { host, network };
  } catch (error) {
    await host.close();
    throw error;
  }
}

/** The host's address on the bridge: as configured, as it was, or the first free of the defaults. */
async function chooseGateway(
  options: DefaultNetworkOptions,
  record: NetworkRecord,
): Promise<string> {
  const { address, bridge, log, used } = options;
  if (address !== undefined) {
    checkGateway(address);
    return address;
  }
  const routes = await readRoutes();
  if (record.gateway) {
    const { subnet } = parseInterface(record.gateway);
    const hidden = collisions(subnet, routes, bridge);
    if (hidden.length > 0) {
      log.warn(
        { subnet: record.gateway, routes: hidden },
        "the subnet of the network bridge collides with routes of the host",
      );
    }
    return record.gateway;
  }
  const resolvers = await resolverAddresses(options);
  const subnet = chooseSubnet(routes, resolvers, bridge, used);
  if (!subnet) {
    throw new Unavailable(
      "the host's routes leave no subnet free for the network bridge; configure one",
    );
  }
  return `${formatAddress(nthAddress(subnet, 1))}/${subnet.prefix}`;
}

function checkGateway(text: string): void {
  let gateway: ReturnType<typeof parseInterface>;
  try {
    gateway = parseInterface(text);
  } catch (error) {
    throw new InvalidParameter(
      `invalid bridge address ${text}: ${(error as Error).message}`,
    );
  }
  const { address, subnet } = gateway;
  if (
    subnet.family !== 4 ||
    subnet.prefix > 29 ||
    subnet.prefix < 8 ||
    address.value === subnet.network
  ) {
    throw new InvalidParameter(
      `invalid bridge address ${text}: it must be a host's IPv4 address with a prefix length of 8 to 29`,
    );
  }
}

/** The addresses of resolvers, which no subnet of ours may hide. */
export async function resolverAddresses({
  resolvers,
}: Pick<HostNetworkOptions, "resolvers">): Promise<Address[]> {
  const { nameservers } = resolvers.read();
  return nameservers.flatMap((server) => {
    try {
      return [parseAddress(server)];
    } catch {
      return [];
    }
  });
}

/** The host's routes of both families. */
export async function readRoutes(): Promise<Route[]> {
  const outputs = await Promise.all(
    ["-4", "-6"].map((family) => runTool("ip", [family, "-json", "route"])),
  );
  return outputs.flatMap((output) => JSON.parse(output || "[]") as Route[]);
}
