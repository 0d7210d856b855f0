/** What a user asks of networks for a container: EndpointSettings of the Engine API, and the modes. */
import { NIC_SLOTS } from "../hypervisor/index.js";
import { z } from "zod";
import { InvalidParameter, NotImplemented } from "../errors.js";
import type { CreateRequest } from "./create-request.js";
import type { NetworkRequest } from "./record.js";

const text = z
  .string()
  .nullish()
  .transform((value) => value ?? undefined)
  .optional();
const texts = z
  .array(z.string())
  .nullish()
  .transform((value) => value ?? undefined)
  .optional();

/** EndpointSettings: what of it a user may set. The rest is what `inspect` shows, and is ignored. */
export const endpointSettingsSchema = z
  .object({
    IPAMConfig: z
      .object({
        IPv4Address: text,
        IPv6Address: text,
        LinkLocalIPs: texts,
      })
      .nullish(),
    Links: texts,
    Aliases: texts,
    MacAddress: text,
    DriverOpts: z.record(z.string(), z.string()).nullish(),
    GwPriority: z.int().nullish(),
  })
  .nullish();
export type EndpointSettings = z.output<typeof endpointSettingsSchema>;

const NO_OTHER =
  "container cannot be connected to multiple networks with one of the networks in private (none) mode";

/**
 * The networks of a new container, the one of its mode first.
 * @throws {InvalidParameter} networks that exclude each other, or more than a machine has NICs for
 * @throws {NotImplemented} link-local addresses, links on the default network
 */
export function networkRequests(request: CreateRequest): NetworkRequest[] {
  if (request.NetworkDisabled) return [{ network: "none" }];
  const host = request.HostConfig ?? {};
  const mode = host.NetworkMode || "default";
  const settings = request.NetworkingConfig?.EndpointsConfig ?? {};
  const isMode = (name: string) => canonical(name) === canonical(mode);
  const others = Object.entries(settings).filter(([name]) => !isMode(name));
  const own = Object.entries(settings).find(([name]) => isMode(name))?.[1];
  const first = networkRequest(mode, own);
  if (request.MacAddress) first.macAddress ??= request.MacAddress;
  if (host.Links?.length) addLinks(first, host.Links);
  const requests = [
    first,
    ...others.map(([name, one]) => networkRequest(name, one)),
  ];
  checkTogether(requests.map(({ network }) => network));
  return requests;
}

/** One network with what is asked of it. */
export function networkRequest(
  network: string,
  settings: EndpointSettings,
): NetworkRequest {
  const { IPAMConfig, Links, Aliases, MacAddress, GwPriority, DriverOpts } =
    settings ?? {};
  if (IPAMConfig?.LinkLocalIPs?.length) {
    throw new NotImplemented(
      "hull does not support link-local addresses (IPAMConfig.LinkLocalIPs) yet",
    );
  }
  const request: NetworkRequest = {
    network,
    ...(IPAMConfig?.IPv4Address && { ipv4Address: IPAMConfig.IPv4Address }),
    ...(IPAMConfig?.IPv6Address && { ipv6Address: IPAMConfig.IPv6Address }),
    ...(Aliases?.length && { aliases: Aliases }),
    ...(MacAddress && { macAddress: MacAddress }),
    ...(GwPriority && { gwPriority: GwPriority }),
    ...(DriverOpts && { driverOpts: DriverOpts }),
  };
  if (Links?.length) addLinks(request, Links);
  return request;
}

/**
 * @param networks by name, of one container
 * @throws {InvalidParameter} they cannot be together
 */
export function checkTogether(networks: string[]): void {
  if (networks.length > 1 && networks.includes("none")) {
    throw new InvalidParameter(NO_OTHER);
  }
  if (networks.length > NIC_SLOTS) {
    throw new InvalidParameter(
      `a container can be on ${NIC_SLOTS} networks at most, not on ${networks.length}: its machine has ${NIC_SLOTS} network interfaces`,
    );
  }
}

/** "other" or "other:name": on networks with names, a link is a name that this container alone uses. */
function addLinks(request: NetworkRequest, links: string[]): void {
  if (["bridge", "none"].includes(canonical(request.network))) {
    throw new NotImplemented(
      "hull does not support links on the default network (HostConfig.Links): containers on a network that a user made find each other by name",
    );
  }
  request.links ??= {};
  for (const link of links) {
    const [other = "", name = other] = link.split(":");
    if (!other || !name) {
      throw new InvalidParameter(`invalid link: ${link}`);
    }
    request.links[name.replace(/^.*\//, "")] = other.replace(/^\//, "");
  }
}

function canonical(network: string): string {
  return network === "default" ? "bridge" : network;
}
