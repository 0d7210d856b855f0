/**
 * Published ports in hull's nftables table. The kernel forwards by itself, so that connections, and the
 * ports, outlive the daemon. Four kinds of packet arrive at a published port:
 *
 * - from outside: rewritten before they are routed (prerouting);
 * - from the host to an address of its own: rewritten where they are made (output);
 * - from the host's loopback: likewise, and sent with the bridge's address, since no guest could answer
 *   127.0.0.1. The kernel lets such packets out where the bridge's route_localnet says so, and would let
 *   a guest's in: these are dropped;
 * - from a container by way of the host's address to a neighbour on its own bridge: sent with the
 *   bridge's address, or the answer would take the short way and miss the rewriting.
 *
 * IPv6 is rewritten likewise where the container has an IPv6 address; else the daemon forwards it.
 */
import { writeFile } from "node:fs/promises";
import { isIPv6 } from "node:net";
import { formatSubnet, type Subnet } from "./ip.js";
import type { PortProtocol } from "./index.js";

/** One published port. */
export interface PortRule {
  protocol: PortProtocol;
  /** An address of the host, or "0.0.0.0" or "::" for all of the family. */
  hostIp: string;
  hostPort: number;
  /** The container's address, of the same family. */
  address: string;
  port: number;
}

/** The chains of the published ports of a family; "" for none. */
export function portChains(
  rules: readonly PortRule[],
  bridges: readonly string[],
  family: 4 | 6,
): string {
  const names = bridges.map((bridge) => `"${bridge}"`).join(", ");
  if (!names) return "";
  return `	chain ports {
		${portTranslations(rules, family).join("\n\t\t")}
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump ports
	}
	chain output {
		type nat hook output priority -100; policy accept;
		fib daddr type local jump ports
	}
${
  family === 4
    ? `	chain martians {
		type filter hook prerouting priority raw; policy accept;
		iifname { ${names} } ip daddr 127.0.0.0/8 drop
		iifname { ${names} } ip saddr 127.0.0.0/8 drop
	}
`
    : ""
}`;
}

/** Rules of the chain `ports`. */
export function portTranslations(
  rules: readonly PortRule[],
  family: 4 | 6,
): string[] {
  // A port of one address before the same port of all of them.
  const sorted = rules
    .filter((rule) => isIPv6(rule.hostIp) === (family === 6))
    .sort((a, b) => Number(isWildcard(a)) - Number(isWildcard(b)));
  // The kernel sends nothing of ::1 out, whatever the rules: the daemon passes on what is for ::1.
  const loopback = family === 6 ? ["ip6 daddr ::1 return"] : [];
  return [...loopback, ...sorted.map(translation)];
}

/** Rules of the chain `postrouting`, for one bridge: who must answer to the host. */
export function portMasquerade(bridge: string, subnet: Subnet): string[] {
  const neighbours = `saddr ${formatSubnet(subnet)} oifname "${bridge}" ct status dnat masquerade`;
  if (subnet.family === 6) return [`ip6 ${neighbours}`];
  return [
    `ip saddr 127.0.0.0/8 oifname "${bridge}" ct status dnat masquerade`,
    `ip ${neighbours}`,
  ];
}

/** Lets the host's loopback reach a bridge. What a guest sends to 127.0.0.1 is dropped by the rules. */
export async function allowLoopback(bridge: string): Promise<void> {
  await writeFile(`/proc/sys/net/ipv4/conf/${bridge}/route_localnet`, "1");
}

function translation(rule: PortRule): string {
  const ipv6 = isIPv6(rule.hostIp);
  const to = isWildcard(rule)
    ? ""
    : `${ipv6 ? "ip6" : "ip"} daddr ${rule.hostIp} `;
  const address = ipv6 ? `[${rule.address}]` : rule.address;
  return `${to}${rule.protocol} dport ${rule.hostPort} dnat to ${address}:${rule.port}`;
}

function isWildcard(rule: PortRule): boolean {
  return rule.hostIp === "0.0.0.0" || rule.hostIp === "::";
}
