/**
 * What a user may ask of a new network: the body of `POST /networks/create`, checked, and what it comes
 * to. Docker's rules and words (moby api/types/network/ipam.go).
 */
import { isIP } from "node:net";
import { z } from "zod";
import {
  Forbidden,
  InvalidParameter,
  NotFound,
  NotImplemented,
} from "../errors.js";
import {
  type Address,
  contains,
  formatSubnet,
  overlaps,
  parseAddress,
  parseInterface,
  type Subnet,
} from "./ip.js";

/** Docker's clients send `null` for "not given". */
const optional = <T extends z.ZodType>(schema: T) =>
  schema
    .nullish()
    .transform((value) => value ?? undefined)
    .optional();
const text = optional(z.string());
const flag = optional(z.boolean());
const texts = optional(z.record(z.string(), z.string()));

const ipamConfigSchema = z.object({
  Subnet: text,
  IPRange: text,
  Gateway: text,
  AuxiliaryAddresses: texts,
});

/** The body of `POST /networks/create`. */
export const createNetworkSchema = z.object({
  Name: text,
  Driver: text,
  Scope: text,
  Internal: flag,
  Attachable: flag,
  Ingress: flag,
  ConfigOnly: flag,
  ConfigFrom: optional(z.object({ Network: text })),
  IPAM: optional(
    z.object({
      Driver: text,
      Options: texts,
      Config: optional(z.array(ipamConfigSchema)),
    }),
  ),
  EnableIPv4: flag,
  EnableIPv6: flag,
  Options: texts,
  Labels: texts,
});
export type CreateNetworkRequest = z.output<typeof createNetworkSchema>;

/** One subnet as it was asked for. */
export interface SubnetRequest {
  subnet: string;
  ipRange?: string;
  gateway?: string;
  /** By the name the user gave each. */
  auxAddresses: Record<string, string>;
}

/** A network that can be made. */
export interface NetworkSpec {
  name: string;
  internal: boolean;
  attachable: boolean;
  ipv4: boolean;
  ipv6: boolean;
  /** At most one a family; a family without one gets a subnet chosen for it. */
  subnets: SubnetRequest[];
  ipamOptions?: Record<string, string>;
  options: Record<string, string>;
  labels: Record<string, string>;
}

/** What the options come to that hull's bridges know. */
export interface BridgeOptions {
  name?: string;
  icc: boolean;
  masquerade: boolean;
  mtu?: number;
}

const PREDEFINED = ["bridge", "host", "none", "default"];
const BRIDGE_PREFIX = "com.docker.network.bridge.";
const MTU = "com.docker.network.driver.mtu";
/** Options whose effect a user would miss; every other one hull does not know is kept and ignored, as by Docker. */
const MISSING_OPTIONS: Record<string, (value: string) => boolean> = {
  [`${BRIDGE_PREFIX}inhibit_ipv4`]: (value) => parseBoolean(value) ?? true,
  [`${BRIDGE_PREFIX}gateway_mode_ipv4`]: (value) => value !== "nat",
  [`${BRIDGE_PREFIX}gateway_mode_ipv6`]: (value) => value !== "nat",
  [`${BRIDGE_PREFIX}trusted_host_interfaces`]: (value) => value !== "",
  "com.docker.network.container_iface_prefix": (value) => value !== "eth",
};
const MAX_NAME = 1024;

/**
 * @throws {InvalidParameter} a value that cannot be
 * @throws {Forbidden} the name of a network that is always there
 * @throws {NotFound} no such driver
 * @throws {NotImplemented} something hull does not do, by name
 */
export function networkSpec(request: CreateNetworkRequest): NetworkSpec {
  const name = request.Name ?? "";
  if (name.trim() === "") {
    throw new InvalidParameter("invalid name: name is empty");
  }
  // eslint-disable-next-line no-control-regex
  if (name.length > MAX_NAME || /[\u0000-\u001f\u007f]/.test(name)) {
    throw new InvalidParameter(
      `invalid name: a network's name has at most ${MAX_NAME} characters, none of them a control character`,
    );
  }
  if (PREDEFINED.includes(name)) {
    throw new Forbidden(
      `operation is not permitted on predefined ${name} network `,
    );
  }
  checkDriver(request);
  const options = { ...request.Options };
  const ipv4 = enabled(request.EnableIPv4, options, "enable_ipv4", true);
  const ipv6 = enabled(request.EnableIPv6, options, "enable_ipv6", false);
  if (!ipv4 && !ipv6) {
    throw new InvalidParameter("IPv4 or IPv6 must be enabled");
  }
  const subnets = checkIpam(request, ipv6).filter(({ subnet }) =>
    isIPv6Text(subnet) ? ipv6 : ipv4,
  );
  for (const family of ["IPv4", "IPv6"]) {
    const same = subnets.filter(
      ({ subnet }) => isIPv6Text(subnet) === (family === "IPv6"),
    );
    if (same.length > 1) {
      throw new Forbidden("bridge driver doesn't support multiple subnets");
    }
  }
  bridgeOptions(options);
  return {
    name,
    internal: request.Internal ?? false,
    attachable: request.Attachable ?? false,
    ipv4,
    ipv6,
    subnets,
    ...(request.IPAM?.Options && { ipamOptions: request.IPAM.Options }),
    options,
    labels: request.Labels ?? {},
  };
}

function checkDriver(request: CreateNetworkRequest): void {
  const driver = request.Driver || "bridge";
  if (driver === "host" || driver === "null") {
    throw new Forbidden(`only one instance of "${driver}" network is allowed`);
  }
  if (request.Scope === "swarm" && driver !== "overlay") {
    throw new Forbidden(
      "cannot create a swarm scoped network when swarm is not active",
    );
  }
  if (driver === "overlay" || request.Ingress) {
    throw new Forbidden(
      'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
    );
  }
  if (driver === "macvlan" || driver === "ipvlan") {
    throw new NotImplemented(
      `hull does not support the network driver ${driver} yet: networks are bridges`,
    );
  }
  if (driver !== "bridge") throw noPlugin(driver);
  const ipam = request.IPAM?.Driver || "default";
  if (ipam !== "default") throw noPlugin(ipam);
  if (request.ConfigOnly || request.ConfigFrom?.Network) {
    throw new NotImplemented(
      "hull does not support configuration-only networks (ConfigOnly, ConfigFrom) yet",
    );
  }
}

function noPlugin(name: string): NotFound {
  return new NotFound(
    `could not find plugin ${name} in v1 plugin registry: plugin "${name}" not found`,
  );
}

function enabled(
  field: boolean | undefined,
  options: Record<string, string>,
  name: string,
  fallback: boolean,
): boolean {
  const option = `com.docker.network.${name}`;
  const value = options[option];
  if (field !== undefined || value === undefined) {
    delete options[option];
    return field ?? fallback;
  }
  const parsed = parseBoolean(value);
  if (parsed === undefined) {
    throw new InvalidParameter(`driver-opt "${option}" is not a valid bool`);
  }
  return parsed;
}

/**
 * Reads the options hull's bridges know.
 * @throws {InvalidParameter} a value that cannot be
 * @throws {NotImplemented} an option whose effect hull does not have
 */
export function bridgeOptions(options: Record<string, string>): BridgeOptions {
  for (const [option, asks] of Object.entries(MISSING_OPTIONS)) {
    const value = options[option];
    if (value !== undefined && asks(value)) {
      throw new NotImplemented(
        `hull does not support the network option ${option}=${value} yet`,
      );
    }
  }
  const boolean = (name: string): boolean => {
    const value = options[BRIDGE_PREFIX + name];
    const parsed = value === undefined ? true : parseBoolean(value);
    if (parsed === undefined) {
      throw new InvalidParameter(
        `invalid value for ${BRIDGE_PREFIX}${name}: "${value}" is not a boolean`,
      );
    }
    return parsed;
  };
  const name = options[`${BRIDGE_PREFIX}name`];
  if (name !== undefined && !isBridgeName(name)) {
    throw new InvalidParameter(invalidBridgeName(name));
  }
  const mtu = options[MTU];
  if (mtu !== undefined && !isMtu(Number(mtu))) {
    throw new InvalidParameter(
      `invalid value for ${MTU}: "${mtu}" is not a number from 576 to 65535`,
    );
  }
  return {
    ...(name !== undefined && { name }),
    icc: boolean("enable_icc"),
    masquerade: boolean("enable_ip_masquerade"),
    ...(mtu !== undefined && { mtu: Number(mtu) }),
  };
}

export function isBridgeName(name: string): boolean {
  return /^[a-zA-Z][a-zA-Z0-9_.-]{0,14}$/.test(name);
}

export function invalidBridgeName(name: string): string {
  return `invalid bridge name ${JSON.stringify(name)}: 1 to 15 letters, digits, ".", "_" and "-", beginning with a letter`;
}

export function isMtu(mtu: number): boolean {
  return Number.isInteger(mtu) && mtu >= 576 && mtu <= 65535;
}

/** As Go's strconv.ParseBool. */
function parseBoolean(value: string): boolean | undefined {
  if (/^(1|t|true|T|TRUE|True)$/.test(value)) return true;
  return /^(0|f|false|F|FALSE|False)$/.test(value) ? false : undefined;
}

/** Checks all subnets and names all that is wrong with them. */
function checkIpam(
  request: CreateNetworkRequest,
  ipv6: boolean,
): SubnetRequest[] {
  const errors: string[] = [];
  const subnets: SubnetRequest[] = [];
  for (const config of request.IPAM?.Config ?? []) {
    const given = config.Subnet ?? "";
    const subnet = parsePrefix(given);
    if (!subnet) {
      errors.push(`invalid subnet ${given}: invalid CIDR block notation`);
      continue;
    }
    if (subnet.family === 6 && !ipv6) continue;
    const canonical = formatSubnet(subnet);
    if (hasHostBits(given)) {
      errors.push(`invalid subnet ${given}: it should be ${canonical}`);
    }
    errors.push(...checkRange(config.IPRange, subnet));
    const gateway = checkAddress(config.Gateway, subnet);
    if (gateway) errors.push(`invalid gateway ${config.Gateway}: ${gateway}`);
    for (const [name, address] of Object.entries(
      config.AuxiliaryAddresses ?? {},
    )) {
      const wrong = checkAddress(address, subnet);
      if (wrong) errors.push(`invalid auxiliary address ${name}: ${wrong}`);
    }
    if (subnet.prefix > (subnet.family === 4 ? 30 : 126)) {
      errors.push(
        `invalid subnet ${given}: it has no room for a gateway and a container`,
      );
    }
    subnets.push({
      subnet: canonical,
      ...(config.IPRange && { ipRange: config.IPRange }),
      ...(config.Gateway && { gateway: config.Gateway }),
      auxAddresses: config.AuxiliaryAddresses ?? {},
    });
  }
  if (errors.length > 0) {
    throw new InvalidParameter(`invalid network config:\n${joined(errors)}`);
  }
  return subnets;
}

function checkRange(range: string | undefined, subnet: Subnet): string[] {
  if (!range) return [];
  const parsed = parsePrefix(range);
  if (!parsed)
    return [`invalid ip-range ${range}: invalid CIDR block notation`];
  const parent = formatSubnet(subnet);
  if (parsed.family !== subnet.family) {
    return [`invalid ip-range ${range}: parent subnet is an ${words(subnet)}`];
  }
  const errors: string[] = [];
  if (parsed.prefix < subnet.prefix) {
    errors.push(
      `invalid ip-range ${range}: CIDR block is bigger than its parent subnet ${parent}`,
    );
  }
  if (hasHostBits(range)) {
    errors.push(
      `invalid ip-range ${range}: it should be ${formatSubnet(parsed)}`,
    );
  }
  if (!overlaps(subnet, parsed)) {
    errors.push(
      `invalid ip-range ${range}: parent subnet ${parent} doesn't contain ip-range`,
    );
  }
  return errors;
}

function checkAddress(
  given: string | undefined,
  subnet: Subnet,
): string | undefined {
  if (!given) return undefined;
  let address: Address;
  try {
    address = parseAddress(given);
  } catch {
    return "invalid address";
  }
  if (address.family !== subnet.family) {
    return `parent subnet is an ${words(subnet)}`;
  }
  return contains(subnet, address)
    ? undefined
    : `parent subnet ${formatSubnet(subnet)} doesn't contain this address`;
}

function words({ family }: Subnet): string {
  return `IPv${family} block`;
}

/** "10.1.0.0/16" and nothing shorter. */
function parsePrefix(given: string): Subnet | undefined {
  if (!given.includes("/")) return undefined;
  try {
    return parseInterface(given).subnet;
  } catch {
    return undefined;
  }
}

function hasHostBits(given: string): boolean {
  const { address, subnet } = parseInterface(given);
  return address.value !== subnet.network;
}

function isIPv6Text(subnet: string): boolean {
  return isIP(subnet.replace(/\/.*/, "")) === 6;
}

/** Several errors as moby's multierror joins them. */
export function joined(errors: string[]): string {
  if (errors.length === 1) return errors[0] ?? "";
  return `* ${errors.map((error) => error.replaceAll("\n", "\n\t")).join("\n* ")}`;
}
