/** Checks of what a container asks of a network, in Docker's words (moby daemon/container_operations.go). */
import { isIPv4, isIPv6 } from "node:net";
import { InvalidParameter } from "../errors.js";
import { joined } from "./create-request.js";
import type { AttachRequest } from "./index.js";
import { contains, parseAddress, type Subnet } from "./ip.js";

/** @throws {InvalidParameter} naming every value that is not an address */
export function checkAddresses(request: AttachRequest): void {
  refuse(addressErrors(request));
}

/** @throws {InvalidParameter} addresses or aliases, which only networks that users made have */
export function refuseOnPredefined(request: AttachRequest): void {
  const errors: string[] = [];
  if (request.ipv4Address || request.ipv6Address) {
    errors.push(
      "user specified IP address is supported on user defined networks only",
    );
  }
  if (request.aliases?.length) {
    errors.push(
      "network-scoped alias is supported only for containers in user defined networks",
    );
  }
  refuse([...errors, ...addressErrors(request)]);
}

/**
 * @param subnets of a network that a user made
 * @param configured whether the user chose them; addresses of others may change with the next start
 * @throws {InvalidParameter}
 */
export function checkForSubnets(
  request: AttachRequest,
  subnets: Subnet[],
  configured: { ipv4: boolean; ipv6: boolean },
): void {
  const errors = addressErrors(request);
  if (errors.length === 0) {
    for (const [address, chosen] of [
      [request.ipv4Address, configured.ipv4],
      [request.ipv6Address, configured.ipv6],
    ] as const) {
      if (!address) continue;
      const parsed = parseAddress(address);
      if (!chosen) {
        errors.push(
          "user specified IP address is supported only when connecting to networks with user configured subnets",
        );
      } else if (!subnets.some((subnet) => contains(subnet, parsed))) {
        errors.push(`no configured subnet contains IP address ${address}`);
      }
    }
  }
  refuse(errors);
}

/** A MAC address as the kernel writes it. */
export function isMac(text: string): boolean {
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text);
}

function addressErrors(request: AttachRequest): string[] {
  const { ipv4Address, ipv6Address, macAddress } = request;
  const errors: string[] = [];
  if (ipv4Address && !isIPv4(ipv4Address)) {
    errors.push(`invalid IPv4 address: ${ipv4Address}`);
  }
  if (ipv6Address && (!isIPv6(ipv6Address) || ipv6Address.includes("%"))) {
    errors.push(`invalid IPv6 address: ${ipv6Address}`);
  }
  if (macAddress && !isMac(macAddress)) {
    errors.push(`invalid MAC address ${macAddress}`);
  } else if (macAddress && parseInt(macAddress.slice(0, 2), 16) & 1) {
    errors.push(`invalid MAC address ${macAddress}: it is a multicast address`);
  }
  return errors;
}

function refuse(errors: string[]): void {
  if (errors.length > 0) {
    throw new InvalidParameter(`invalid endpoint settings:\n${joined(errors)}`);
  }
}
