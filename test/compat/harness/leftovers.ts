/** What a daemon has of the host: to be the same before and after whatever leaves nothing behind. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import type { Daemon } from "./daemon.js";
import { environment } from "./environment.js";

/**
 * Everything of the host that a daemon made and that outlives it.
 * @param bridge the daemon's own, to whose name a test adds letters for those of its networks
 */
export function leftovers(
  daemon: Daemon,
  bridge: string,
): Record<string, string[]> {
  const rules = rulesOf(bridge);
  // Taps, plugged in or not, have a beginning of their names in common.
  const taps = /iifname "(hl\w+)\*" drop/.exec(rules.join("\n"))?.[1];
  return {
    files: list(daemon.dataRoot),
    runtime: list(daemon.execRoot),
    machines: daemon.machines().map(String),
    links: linkNames().filter(
      (name) =>
        name.startsWith(bridge) ||
        (taps !== undefined && name.startsWith(taps)),
    ),
    rules,
  };
}

function linkNames(): string[] {
  const links = JSON.parse(
    execFileSync("ip", ["-json", "link"], { encoding: "utf8" }),
  ) as { ifname: string }[];
  return links.map(({ ifname }) => ifname).sort();
}

/** The daemon's two tables, which have its bridge's name. */
function rulesOf(bridge: string): string[] {
  if (!environment().root) return [];
  return ["ip", "ip6"].flatMap((family) => {
    try {
      return execFileSync("nft", ["list", "table", family, bridge], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
      })
        .split("\n")
        .map((line) => line.trim());
    } catch {
      return [];
    }
  });
}

/**
 * All files but logs, of which a container keeps an empty one for a start that did not happen, and reports of
 * starts and empty disks, which are written when there is time.
 */
function list(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { recursive: true, encoding: "utf8" })
    .filter(
      (name) => !/(-json\.log|start-trace\.json)$|^blank\/spare-/.test(name),
    )
    .sort();
}
