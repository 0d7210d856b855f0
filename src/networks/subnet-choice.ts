/** Which subnet a new network gets. */
import { randomBytes } from "node:crypto";
import {
  type Address,
  contains,
  formatSubnet,
  overlaps,
  parseSubnet,
  type Subnet,
} from "./ip.js";

/** Docker's default address pools, in its order: 172.17–172.31 as /16s, then 192.168 as /20s. */
export const DEFAULT_SUBNETS: readonly Subnet[] = [
  ...Array.from({ length: 15 }, (_, i) => parseSubnet(`172.${17 + i}.0.0/16`)),
  ...Array.from({ length: 16 }, (_, i) =>
    parseSubnet(`192.168.${16 * i}.0/20`),
  ),
];

/** A line of `ip -json route`. */
export interface Route {
  /** "default", an address or a subnet. */
  dst: string;
  dev?: string;
}

/**
 * The first candidate that hides nothing the host can reach by a more specific way than its default
 * route.
 * @param avoid single addresses that must stay reachable, such as the host's resolvers
 * @param ownDevice the bridge itself: a route over it is no obstacle
 * @param used subnets of other networks
 * @returns undefined when none is free
 */
export function chooseSubnet(
  routes: readonly Route[],
  avoid: readonly Address[],
  ownDevice: string,
  used: readonly Subnet[] = [],
  candidates: readonly Subnet[] = DEFAULT_SUBNETS,
): Subnet | undefined {
  const taken = [...routesInUse(routes, ownDevice), ...used];
  return candidates.find(
    (candidate) =>
      !taken.some((subnet) => overlaps(candidate, subnet)) &&
      !avoid.some((address) => contains(candidate, address)),
  );
}

/** A /64 of unique local addresses (RFC 4193), whose random bits make it nobody else's. */
export function randomIPv6Subnet(): Subnet {
  const digits = `fd${randomBytes(7).toString("hex")}`;
  return parseSubnet(`${digits.match(/.{4}/g)?.join(":")}::/64`);
}

/** The host's routes over other devices that a subnet would collide with, in words. */
export function collisions(
  subnet: Subnet,
  routes: readonly Route[],
  ownDevice: string,
): string[] {
  return routesInUse(routes, ownDevice)
    .filter((used) => overlaps(subnet, used))
    .map(formatSubnet);
}

function routesInUse(routes: readonly Route[], ownDevice: string): Subnet[] {
  return routes.flatMap((route) =>
    route.dst === "default" || route.dev === ownDevice
      ? []
      : [parseSubnet(route.dst)],
  );
}
