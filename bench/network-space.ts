/**
 * A network namespace for everything that is measured: bridges, packet filter rules and kernel settings
 * of all engines go with it, and a peer's rules never meet the host's own.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { run } from "./processes.js";
import type { Scratch } from "./scratch.js";

export class NetworkSpace {
  readonly #prefix: readonly string[];

  private constructor(prefix: readonly string[]) {
    this.#prefix = prefix;
  }

  /** Without root it is the host's own network, and what needs more is skipped. */
  static async make(scratch: Scratch): Promise<NetworkSpace> {
    if (process.getuid?.() !== 0) {
      return new NetworkSpace([]);
    }
    // Ends with this process, however that ends: its stdin is ours.
    const holder = spawn("unshare", ["--net", "sh", "-c", "echo; exec cat"], {
      stdio: ["pipe", "pipe", "inherit"],
      // A Ctrl-C is for the bench, which then ends all in order.
      detached: true,
    });
    const ended = once(holder, "close").catch(() => undefined);
    holder.on("error", () => undefined);
    holder.stdin.on("error", () => undefined);
    scratch.atEnd("the network namespace", async () => {
      holder.stdin.end();
      await ended;
    });
    await Promise.race([
      once(holder.stdout, "data"),
      ended.then(() => {
        throw new Error("cannot make a network namespace");
      }),
    ]);
    const space = new NetworkSpace([
      "nsenter",
      `--net=/proc/${holder.pid}/ns/net`,
      "--",
    ]);
    await run(space.command(["ip", "link", "set", "lo", "up"]));
    return space;
  }

  /** The command line that runs a program inside. */
  command(command: readonly string[]): string[] {
    return [...this.#prefix, ...command];
  }
}
