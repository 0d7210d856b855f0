/** hull's own nftables tables for what is routed. Nobody else's are read into them, written or flushed. */
import type { Logger } from "pino";
import { runTool } from "./command.js";
import { formatSubnet, type Subnet } from "./ip.js";
import { NftShell } from "./nft-shell.js";
import {
  portChains,
  portMasquerade,
  portTranslations,
  type PortRule,
} from "./port-rules.js";

export interface FirewallNetwork {
  bridge: string;
  subnets: Subnet[];
  /** Nothing is routed from it or to it. */
  internal: boolean;
  /** What leaves it has the host's address. */
  masquerade: boolean;
  /** hull serves names on its gateway's address. */
  names: boolean;
}

export interface FirewallRules {
  /** Name of the tables, one a family: another one for each daemon. */
  table: string;
  /** What the names of the daemon's taps begin with. */
  taps: string;
  networks: FirewallNetwork[];
  ports: PortRule[];
}

/** Queries a second that a guest may send to the name service, by the kernel's count. */
const DNS_RATE = 1000;
const FAMILIES = [
  { family: 4, table: "ip" },
  { family: 6, table: "ip6" },
] as const;

/** The one writer of the tables. Who changes the rules calls `apply`. */
export class Firewall {
  readonly rules: FirewallRules;
  readonly nft = new NftShell();
  /** What the tables have besides the ports. */
  #applied = "";
  #writing: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;

  constructor(table: string) {
    this.rules = { table, taps: "", networks: [], ports: [] };
  }

  /**
   * Resolves when the rules as they are now are in force. Changes made while nft runs go together. A
   * daemon without bridges (user mode) has no tables.
   * @throws {SystemError} nft refused, in its words; the tables are then as they were
   */
  apply(): Promise<void> {
    if (this.#next) return this.#next;
    const next = this.#writing.then(async () => {
      this.#next = undefined;
      if (this.rules.networks.length > 0) await this.#write();
    });
    this.#next = next;
    this.#writing = next.catch(() => undefined);
    return next;
  }

  /** Ends the helper process. The rules stay. */
  close(): Promise<void> {
    return this.nft.close();
  }

  async #write(): Promise<void> {
    const others = firewallScript({ ...this.rules, ports: [] });
    if (others === this.#applied) {
      try {
        // Not the tables anew: the kernel waits where a chain that hears of packets goes.
        await this.nft.run(portCommands(this.rules));
        return;
      } catch {
        // Somebody flushed the host's rules, perhaps: all is made anew.
      }
    }
    this.#applied = "";
    await this.nft.run(commandsOf(firewallScript(this.rules)));
    this.#applied = others;
  }
}

function commandsOf(script: string): string[] {
  const lines = script.split("\n").map((line) => line.trim());
  return lines.filter((line) => line !== "");
}

/** Puts the rules of the ports in place of those that are there. */
function portCommands({ table, ports }: FirewallRules): string[] {
  return FAMILIES.flatMap(({ family, table: kind }) => {
    const chain = `${kind} ${table} ports`;
    return [
      `flush chain ${chain}`,
      ...portTranslations(ports, family).map(
        (rule) => `add rule ${chain} ${rule}`,
      ),
    ];
  });
}

/**
 * The script that makes the tables anew in one transaction, whatever they were before. Containers reach
 * the others of their network and everything outside, with the host's address. No network reaches
 * another one, and from outside nobody reaches a container that did not ask first, but at its published
 * ports.
 */
export function firewallScript(rules: FirewallRules): string {
  return FAMILIES.map(
    ({ family, table }) => `table ${table} ${rules.table}
delete table ${table} ${rules.table}
table ${table} ${rules.table} {
	set bridges {
		type ifname
		elements = { ${rules.networks.map(({ bridge }) => quoted(bridge)).join(", ")} }
	}
	set queries {
		type ${family === 4 ? "ipv4_addr" : "ipv6_addr"}
		size 65535
		flags dynamic,timeout
		timeout 10s
	}
	chain unplugged {
		type filter hook prerouting priority raw; policy accept;
		iifname "${rules.taps}*" drop
	}
${portChains(
  rules.ports,
  rules.networks.map(({ bridge }) => bridge),
  family,
)}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		${lines(masquerading(rules, family))}
	}
	chain input {
		type filter hook input priority filter; policy accept;
		${lines(dnsLimits(rules, table))}
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		${lines(forwarding(rules))}
	}
}
`,
  ).join("");
}

function masquerading(rules: FirewallRules, family: 4 | 6): string[] {
  return rules.networks
    .filter(({ internal }) => !internal)
    .flatMap(({ bridge, subnets, masquerade }) =>
      subnets
        .filter((subnet) => subnet.family === family)
        .flatMap((subnet) => [
          ...(masquerade
            ? [
                `${family === 4 ? "ip" : "ip6"} saddr ${formatSubnet(subnet)} oifname != ${quoted(bridge)} masquerade`,
              ]
            : []),
          ...portMasquerade(bridge, subnet),
        ]),
    );
}

/** A flood of queries ends in the kernel: the daemon has other things to do. */
function dnsLimits(rules: FirewallRules, table: string): string[] {
  return rules.networks
    .filter(({ names }) => names)
    .map(
      ({ bridge }) =>
        `iifname ${quoted(bridge)} udp dport 53 update @queries { ${table} saddr limit rate over ${DNS_RATE}/second burst ${DNS_RATE} packets } drop`,
    );
}

function forwarding({ networks }: FirewallRules): string[] {
  return [
    ...networks
      .filter(({ internal }) => internal)
      .flatMap(({ bridge }) => [
        `iifname ${quoted(bridge)} oifname != ${quoted(bridge)} drop`,
        `iifname != ${quoted(bridge)} oifname ${quoted(bridge)} drop`,
      ]),
    "oifname @bridges ct state established,related accept",
    "oifname @bridges ct status dnat accept",
    // Seen here where br_netfilter is loaded, as by another container engine.
    ...networks.map(
      ({ bridge }) =>
        `iifname ${quoted(bridge)} oifname ${quoted(bridge)} accept`,
    ),
    "oifname @bridges drop",
    "iifname @bridges accept",
  ];
}

function lines(rules: string[]): string {
  return rules.join("\n\t\t");
}

function quoted(name: string): string {
  return JSON.stringify(name);
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
