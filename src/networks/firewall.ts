/** hull's own nftables table. Nobody else's tables are read into it, written or flushed. */
import type { Logger } from "pino";
import { runTool } from "./command.js";
import { formatSubnet, type Subnet } from "./ipv4.js";
import {
  portAccept,
  portChains,
  portMasquerade,
  type PortRule,
} from "./port-rules.js";

export interface FirewallRules {
  /** Name of the table: one a daemon. */
  table: string;
  networks: { bridge: string; subnet: Subnet }[];
  ports: PortRule[];
}

/** The one writer of the table. Who changes the rules calls `apply`, and the table is made anew. */
export class Firewall {
  readonly rules: FirewallRules;
  #writing: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;

  constructor(table: string) {
    this.rules = { table, networks: [], ports: [] };
  }

  /**
   * Resolves when the rules as they are now are in force. Changes made while nft runs go together. A
   * daemon without bridges (user mode) has no table.
   * @throws {SystemError} nft refused, in its words; the table is then as it was
   */
  apply(): Promise<void> {
    if (this.#next) return this.#next;
    const next = this.#writing.then(async () => {
      this.#next = undefined;
      if (this.rules.networks.length === 0) return;
      await runTool("nft", ["-f", "-"], firewallScript(this.rules));
    });
    this.#next = next;
    this.#writing = next.catch(() => undefined);
    return next;
  }
}

/**
 * The script that makes the table anew in one transaction, whatever it was before. Containers reach each
 * other and everything outside, with the host's address; from outside nobody reaches a container that
 * did not ask first, but at its published ports.
 */
export function firewallScript(rules: FirewallRules): string {
  const masquerade = rules.networks.flatMap(({ bridge, subnet }) => [
    `ip saddr ${formatSubnet(subnet)} oifname != "${bridge}" masquerade`,
    ...portMasquerade(bridge, subnet),
  ]);
  const forward = rules.networks.flatMap(({ bridge }) => [
    portAccept(bridge),
    `iifname "${bridge}" accept`,
    `oifname "${bridge}" ct state established,related accept`,
    `oifname "${bridge}" drop`,
  ]);
  return `table ip ${rules.table}
delete table ip ${rules.table}
table ip ${rules.table} {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		${masquerade.join("\n\t\t")}
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		${forward.join("\n\t\t")}
	}
${portChains(
  rules.ports,
  rules.networks.map(({ bridge }) => bridge),
)}}
`;
}

/**
 * Says in the log when somebody else's rules drop what containers send through the host: a packet has to
 * pass every table, so that no rule of ours can let it through.
 */
export async function warnOfForeignDrop(
  bridge: string,
  log: Logger,
): Promise<void> {
  let chain: string;
  try {
    chain = await runTool("nft", ["list", "chain", "ip", "filter", "FORWARD"]);
  } catch {
    // No such chain: nobody's rules.
    return;
  }
  if (dropsByDefault(chain) && !chain.includes(`"${bridge}"`)) {
    log.warn(
      `the host's FORWARD chain drops what it does not know (another container engine sets that): containers may not reach the outside. To let them: iptables -I FORWARD -i ${bridge} -j ACCEPT; iptables -I FORWARD -o ${bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
    );
  }
}

/** Whether `nft list chain`'s output shows a base chain with policy drop. */
export function dropsByDefault(chain: string): boolean {
  return /type filter hook forward [^\n]*policy drop;/.test(chain);
}
