/** Running other programs. */
import { spawn, type ChildProcess } from "node:child_process";
import {
  accessSync,
  closeSync,
  constants,
  openSync,
  readFileSync,
} from "node:fs";
import { delimiter, join } from "node:path";

const PATH = [
  process.env["PATH"] ?? "",
  "/usr/sbin",
  "/sbin",
  "/usr/local/sbin",
].join(delimiter);

/** @returns a program's path, undefined where it is not installed */
export function findProgram(name: string): string | undefined {
  return PATH.split(delimiter)
    .filter(Boolean)
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

export interface RunOptions {
  env?: Record<string, string>;
  input?: string;
  /** Milliseconds; the program is then killed and the run fails. */
  timeout?: number;
}

/**
 * Runs a program to its end.
 * @returns its stdout
 * @throws {Error} with its stderr when it fails
 */
export async function run(
  command: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const [program = "", ...args] = command;
  const child = spawn(program, args, {
    env: { ...process.env, PATH, ...options.env },
    stdio: "pipe",
    timeout: options.timeout ?? 120_000,
    killSignal: "SIGKILL",
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.input ?? "");
  await new Promise<void>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (code === 0) {
        resolve();
      } else {
        reject(
          new Error(
            `${command.join(" ")}: ended with ${signal ?? code}: ${stderr.trim().slice(-2000)}`,
          ),
        );
      }
    });
  });
  return stdout;
}

/** As `run`, for the milliseconds it takes. */
export async function time(
  command: readonly string[],
  options: RunOptions = {},
): Promise<number> {
  const begin = performance.now();
  await run(command, options);
  return performance.now() - begin;
}

/** A program that goes on until it is stopped, its output in a file. */
export class Background {
  readonly #child: ChildProcess;
  readonly #log: string;
  readonly #ended: Promise<string>;
  #reason: string | undefined;

  constructor(
    command: readonly string[],
    log: string,
    env: Record<string, string> = {},
  ) {
    const [program = "", ...args] = command;
    const output = openSync(log, "a");
    this.#child = spawn(program, args, {
      env: { ...process.env, PATH, ...env },
      stdio: ["ignore", output, output],
      // A Ctrl-C is for the bench, which then ends all in order.
      detached: true,
    });
    closeSync(output);
    this.#log = log;
    this.#ended = new Promise((resolve) => {
      this.#child.on("error", (error) => resolve(error.message));
      this.#child.on("close", (code, signal) =>
        resolve(`ended with ${signal ?? code}`),
      );
    });
    void this.#ended.then((reason) => (this.#reason = reason));
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Waits until `probe` no longer throws; fails when the program ends first or time is up. */
  async ready(probe: () => Promise<unknown>, timeout = 60_000): Promise<void> {
    const deadline = Date.now() + timeout;
    for (;;) {
      try {
        await probe();
        return;
      } catch (error) {
        if (this.#reason !== undefined || Date.now() > deadline) {
          throw new Error(
            `not ready (${this.#reason ?? String(error)}): ${this.#child.spawnargs.join(" ")}\n${readFileSync(this.#log, "utf8").slice(-2000)}`,
            { cause: error },
          );
        }
        await sleep(50);
      }
    }
  }

  /** SIGTERM, and SIGKILL to what has not ended after 15 seconds. */
  async stop(): Promise<void> {
    this.#child.kill("SIGTERM");
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 15_000);
    await this.#ended;
    clearTimeout(timer);
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
