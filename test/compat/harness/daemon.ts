/** A hulld under test: started, killed and started again over the same folders. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { environment } from "./environment.js";
import { eventually, sleep } from "./wait.js";

const HULLD = fileURLToPath(new URL("../../../bin/hulld", import.meta.url));

interface NobodysMachine {
  pid: number;
  /** In the folder of machines. */
  folder: string;
  taps: string[];
}

const ZYGOTE = /\/m\/zygote-[0-9a-f]+/;
/** Commands that have come to their end soon. */
const PASSING = /^[^\0]*\b(hull-jail|cp|mke2fs|mkfs\.erofs)\0/;

/**
 * All of a daemon is in one folder: data root, exec root, socket, log, process id. Whoever knows the
 * folder can stop it and start it again.
 */
export class Daemon {
  constructor(readonly directory: string) {}

  /** The daemon all test files share. */
  static shared(): Daemon {
    return new Daemon(environment().daemon);
  }

  get socket(): string {
    return path.join(this.directory, "hull.sock");
  }

  /** For DOCKER_HOST. */
  get host(): string {
    return `unix://${this.socket}`;
  }

  get dataRoot(): string {
    return path.join(this.directory, "data");
  }

  get execRoot(): string {
    return path.join(this.directory, "exec");
  }

  get log(): string {
    return path.join(this.directory, "hulld.log");
  }

  /** Process id of the daemon started last. */
  get pid(): number {
    return Number(readFileSync(path.join(this.directory, "pid"), "utf8"));
  }

  /**
   * Starts the daemon and waits until it answers.
   * @param args flags for the first start; a restart uses them again
   * @param env added to the environment, for this start only
   */
  async start(args?: string[], env?: Record<string, string>): Promise<void> {
    const child = this.launch(args, env);
    try {
      await eventually(
        async () => {
          if (child.ended === undefined) await this.ping();
        },
        { timeout: 60_000, what: "hulld answers" },
      );
    } catch (error) {
      await this.stop("SIGKILL");
      throw error;
    }
    if (child.ended !== undefined) {
      throw new Error(
        `hulld did not start (${child.ended}):\n${this.logTail()}`,
      );
    }
  }

  /**
   * Starts the daemon and does not wait for it.
   * @returns how it ended, once it has
   */
  launch(
    args?: string[],
    env?: Record<string, string>,
  ): { readonly ended: string | undefined } {
    mkdirSync(this.directory, { recursive: true });
    if (args)
      writeFileSync(
        path.join(this.directory, "args.json"),
        JSON.stringify(args),
      );
    const log = openSync(this.log, "a");
    const child = spawn(
      HULLD,
      [
        "--data-root",
        this.dataRoot,
        "--exec-root",
        this.execRoot,
        "-H",
        this.host,
        "--debug",
        ...this.flags,
      ],
      {
        stdio: ["ignore", log, log],
        detached: true,
        env: { ...process.env, ...env },
      },
    );
    closeSync(log);
    const state: { ended: string | undefined } = { ended: undefined };
    child.once("error", (error) => (state.ended = error.message));
    child.once(
      "exit",
      (code, signal) => (state.ended = `exit code ${code}, signal ${signal}`),
    );
    child.unref();
    if (child.pid !== undefined) {
      writeFileSync(path.join(this.directory, "pid"), String(child.pid));
    }
    return state;
  }

  /** Those of its first start. */
  private get flags(): string[] {
    const saved = path.join(this.directory, "args.json");
    return existsSync(saved)
      ? (JSON.parse(readFileSync(saved, "utf8")) as string[])
      : [];
  }

  /** @throws when nobody answers */
  ping(): Promise<void> {
    return new Promise((resolve, reject) => {
      const request = http.get(
        { socketPath: this.socket, path: "/_ping" },
        (response) => {
          response.resume();
          if (response.statusCode === 200) resolve();
          else reject(new Error(`_ping: ${response.statusCode}`));
        },
      );
      request.setTimeout(5000, () =>
        request.destroy(new Error("_ping: no answer")),
      );
      request.on("error", reject);
    });
  }

  /** Ends the daemon with a signal and waits for its end. Containers go on. */
  async stop(signal: NodeJS.Signals): Promise<void> {
    const pid = this.pid;
    try {
      process.kill(pid, signal);
    } catch {
      return;
    }
    await eventually(() => assertGone(pid), {
      timeout: 30_000,
      what: `hulld ends on ${signal}`,
    });
  }

  /** kill -9, then a start over the same folders. */
  async crashAndRestart(): Promise<void> {
    await this.stop("SIGKILL");
    await this.start();
  }

  /**
   * Processes that name this daemon's folder in their command line: its machines, but for the spares, and without
   * what only makes or copies something for them.
   */
  machines(): number[] {
    return this.processes().filter((pid) => {
      const line = commandLine(pid);
      return (
        !PASSING.test(line) && !ZYGOTE.test(line) && !this.spareFolder(line)
      );
    });
  }

  /** What the warm pool's machines are forked from. */
  zygotes(): number[] {
    return this.processes().filter((pid) => ZYGOTE.test(commandLine(pid)));
  }

  /** Machines that are nobody's: those of the warm pool, and those that are being started. */
  spares(): NobodysMachine[] {
    return this.standing().filter(({ folder }) => folder.startsWith("blank-"));
  }

  /** The same, and zygotes. */
  standing(): NobodysMachine[] {
    return this.processes().flatMap((pid) => {
      const folder = this.spareFolder(commandLine(pid));
      return folder === undefined ? [] : [{ pid, folder, taps: tapsOf(pid) }];
    });
  }

  private spareFolder(line: string): string | undefined {
    const folder = /\/m\/((blank|zygote)-[0-9a-f]+)/.exec(line)?.[1];
    // A machine that is given to a container has its folder under another name from then on.
    return folder !== undefined &&
      existsSync(path.join(this.execRoot, "m", folder))
      ? folder
      : undefined;
  }

  private processes(): number[] {
    return processesNaming(this.execRoot)
      .concat(processesNaming(this.dataRoot))
      .filter(
        (pid, at, all) => all.indexOf(pid) === at && pid !== this.pidOrZero(),
      );
  }

  /** The end of the daemon's log. */
  logTail(lines = 30): string {
    return existsSync(this.log)
      ? readFileSync(this.log, "utf8").split("\n").slice(-lines).join("\n")
      : "(no log)";
  }

  /** Ends everything of this daemon, machines too, and removes its folder unless it is to be kept. */
  async destroy(keep = false): Promise<void> {
    if (existsSync(path.join(this.directory, "pid")))
      await this.stop("SIGTERM").catch(() => this.stop("SIGKILL"));
    for (const pid of this.processes()) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has ended by itself.
      }
    }
    await sleep(50);
    removeUserNetworks(this.dataRoot);
    const flags = this.flags;
    const bridge = flags[flags.indexOf("--bridge") + 1];
    if (flags.includes("--bridge") && bridge !== undefined)
      removeBridge(bridge);
    if (!keep) rmSync(this.directory, { recursive: true, force: true });
  }

  private pidOrZero(): number {
    try {
      return this.pid;
    } catch {
      return 0;
    }
  }
}

/** Runs hulld to its end, which is to be soon: for what it refuses. */
export async function runDaemon(
  args: string[],
): Promise<{ code: number | null; output: string }> {
  const child = spawn(HULLD, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const limit = setTimeout(() => child.kill("SIGKILL"), 20_000);
  const [code] = (await once(child, "close")) as [number | null];
  clearTimeout(limit);
  return { code, output };
}

function assertGone(pid: number): void {
  // A process of ours stays a zombie until node has collected it.
  const stat = (() => {
    try {
      return readFileSync(`/proc/${pid}/stat`, "utf8");
    } catch {
      return undefined;
    }
  })();
  if (stat !== undefined && !/\) Z /.test(stat))
    throw new Error(`process ${pid} still runs`);
}

function processesNaming(text: string): number[] {
  const found: number[] = [];
  for (const name of readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)) {
    if (commandLine(name).includes(text)) found.push(name);
  }
  return found.filter((pid) => pid !== process.pid);
}

/** "" when there is no such process any more. */
function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

/** The taps a process has open. */
export function tapsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fdinfo`).flatMap((number) => {
      const info = readFileSync(`/proc/${pid}/fdinfo/${number}`, "utf8");
      return /^iff:\s+(\S+)$/m.exec(info)?.[1] ?? [];
    });
  } catch {
    return [];
  }
}

/** A daemon's bridge and the tables of rules that are named after it. */
function removeBridge(bridge: string): void {
  const run = (program: string, ...args: string[]) => {
    try {
      return execFileSync(program, args, {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
      });
    } catch {
      return "";
    }
  };
  run("ip", "link", "del", bridge);
  for (const table of run("nft", "list", "tables").split("\n"))
    if (table.endsWith(` ${bridge}`)) run("nft", "delete", ...table.split(" "));
}

/** How the machine of a container came up, as `hulld trace` says. */
export function traceOf(
  daemon: Daemon,
  container: string,
): { kind: string; text: string } {
  const args = ["trace", "-H", daemon.host, container];
  const text = execFileSync(HULLD, args, { encoding: "utf8" });
  return { kind: /^start +(\w+)/m.exec(text)?.[1] ?? "", text };
}

/** Bridges of networks that a test made and, having failed, did not remove. */
function removeUserNetworks(dataRoot: string): void {
  const records = path.join(dataRoot, "networks");
  if (!existsSync(records)) return;
  for (const name of readdirSync(records)) {
    if (!/^[0-9a-f]{64}\.json$/.test(name)) continue;
    try {
      execFileSync("ip", ["link", "del", `br-${name.slice(0, 12)}`], {
        stdio: "ignore",
      });
    } catch {
      // It had a name of its own, or was gone.
    }
  }
}
