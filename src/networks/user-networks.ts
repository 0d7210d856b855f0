/** The networks that users make: made, found again, removed. */
import { readdir } from "node:fs/promises";
import type { Logger } from "pino";
import {
  Conflict,
  Forbidden,
  InvalidParameter,
  Unavailable,
} from "../errors.js";
import { faultPoint } from "../fault.js";
import { BridgeNetwork } from "./bridge-network.js";
import {
  bridgeOptions,
  type CreateNetworkRequest,
  networkSpec,
  type NetworkSpec,
} from "./create-request.js";
import { readRoutes, resolverAddresses } from "./default-network.js";
import { type HostNetwork, recordFile } from "./host-network.js";
import {
  formatAddress,
  formatSubnet,
  nthAddress,
  overlaps,
  parseAddress,
  parseSubnet,
  type Subnet,
} from "./ip.js";
import { newRecord, type NetworkRecord, type RecordFile } from "./record.js";
import { chooseSubnet, collisions, randomIPv6Subnet } from "./subnet-choice.js";

export interface UserNetworksOptions {
  directory: string;
  host: HostNetwork;
  mtu: number;
}

/**
 * What the records of user networks say.
 * @returns records with their files, oldest first
 */
export async function readUserNetworks(
  directory: string,
  log: Logger,
): Promise<{ record: NetworkRecord; file: RecordFile }[]> {
  const names = await readdir(directory).catch(() => [] as string[]);
  const found: { record: NetworkRecord; file: RecordFile }[] = [];
  for (const name of names) {
    const id = /^([0-9a-f]{64})\.json$/.exec(name)?.[1];
    if (id === undefined) continue;
    const file = recordFile(directory, id, log);
    const record = await file.read();
    if (record?.spec) found.push({ record, file });
  }
  return found.sort((a, b) => a.record.created.localeCompare(b.record.created));
}

/** The subnets that networks of records have. */
export function subnetsOf(records: NetworkRecord[]): Subnet[] {
  return records.flatMap(({ gateway, gateway6 }) =>
    [gateway, gateway6].flatMap((text) => (text ? [parseSubnet(text)] : [])),
  );
}

/**
 * Brings a network of an earlier daemon up again. One that cannot come up is there all the same, to be
 * removed, or brought up by the next daemon; the log says why.
 */
export async function reopenUserNetwork(
  { record, file }: { record: NetworkRecord; file: RecordFile },
  options: UserNetworksOptions,
): Promise<BridgeNetwork> {
  const network = networkOf(record, file, options);
  try {
    await network.up(false);
  } catch (error) {
    options.host.log.error(
      { err: error, network: record.name },
      "a network cannot be brought up again",
    );
  }
  return network;
}

/**
 * Makes a network.
 * @param others the networks that are there
 * @throws as NetworkService.create
 */
export async function createUserNetwork(
  request: CreateNetworkRequest,
  others: BridgeNetwork[],
  options: UserNetworksOptions,
): Promise<BridgeNetwork> {
  const { directory, host } = options;
  const spec = networkSpec(request);
  const record: NetworkRecord = { ...newRecord(spec.name), spec };
  record.bridge =
    bridgeOptions(spec.options).name ?? `br-${record.id.slice(0, 12)}`;
  const { bridge } = record;
  if (others.some((other) => other.bridge === bridge)) {
    throw new Conflict(`bridge name ${bridge} is in use by another network`);
  }
  await chooseGateways(record, spec, bridge, others, host);
  const file = recordFile(directory, record.id, host.log);
  const network = networkOf(record, file, options);
  try {
    await file.write(record);
    faultPoint("network-create.recorded");
    await network.up(true);
    faultPoint("network-create.up");
  } catch (error) {
    await network.down().catch((failure: unknown) => {
      host.log.warn({ err: failure }, "cannot undo the making of a network");
    });
    await network.forget();
    throw error;
  }
  return network;
}

function networkOf(
  record: NetworkRecord,
  file: RecordFile,
  { host, mtu }: UserNetworksOptions,
): BridgeNetwork {
  const options = record.spec?.options ?? {};
  const known = bridgeOptions(options);
  return new BridgeNetwork({
    record,
    file,
    host,
    bridge: record.bridge ?? `br-${record.id.slice(0, 12)}`,
    mtu: known.mtu ?? mtu,
    icc: known.icc,
    masquerade: known.masquerade,
    options,
  });
}

/** Gives the record its gateways, in subnets as asked for or chosen. */
async function chooseGateways(
  record: NetworkRecord,
  spec: NetworkSpec,
  bridge: string,
  others: BridgeNetwork[],
  host: HostNetwork,
): Promise<void> {
  const used = others.flatMap((other) => other.subnets);
  const routes = await readRoutes();
  const asked = spec.subnets.map((request) => ({
    request,
    subnet: parseSubnet(request.subnet),
  }));
  for (const { subnet } of asked) {
    if (used.some((other) => overlaps(other, subnet))) {
      throw new Forbidden(
        "invalid pool request: Pool overlaps with other one on this address space",
      );
    }
    const hidden = collisions(subnet, routes, bridge);
    if (hidden.length > 0) {
      host.log.warn(
        { network: spec.name, subnet: formatSubnet(subnet), routes: hidden },
        "the subnet asked for collides with routes of the host",
      );
    }
  }
  const of = (family: 4 | 6) =>
    asked.find(({ subnet }) => subnet.family === family);
  if (spec.ipv4) {
    const wanted = of(4);
    const subnet =
      wanted?.subnet ??
      chooseSubnet(routes, await resolverAddresses(host), bridge, used);
    if (!subnet) {
      throw new InvalidParameter(
        "all predefined address pools have been fully subnetted",
      );
    }
    record.gateway = gatewayOf(subnet, wanted?.request.gateway);
  }
  if (spec.ipv6) {
    const wanted = of(6);
    record.gateway6 = gatewayOf(
      wanted?.subnet ?? randomIPv6Subnet(),
      wanted?.request.gateway,
    );
  }
}

function gatewayOf(subnet: Subnet, wanted: string | undefined): string {
  const address = wanted ? parseAddress(wanted) : nthAddress(subnet, 1);
  return `${formatAddress(address)}/${subnet.prefix}`;
}

/** Says that networks of users cannot be had without the bridge driver. */
export function noUserNetworks(): Unavailable {
  return new Unavailable(
    "networks cannot be made: the daemon's network driver is user mode, in which a container reaches the outside and no other container. Run it as root for the bridge driver",
  );
}
