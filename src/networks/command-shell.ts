/**
 * A tool of the host's that runs on and takes commands on its stdin: starting one anew costs more than what it
 * is to do, and forking a daemon of 100 MB holds the daemon up for milliseconds.
 */
import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { once } from "node:events";
import { SystemError } from "../errors.js";
import { toolEnvironment } from "./command.js";

/** A tool that says more than this about one group of commands has lost its mind, in characters. */
const MAX_OUTPUT = 64 * 1024;

/** How one tool is spoken to. */
export interface Dialect {
  program: string;
  args: readonly string[];
  env?: Record<string, string>;
  /** The lines of a group, the last of which has the tool say that it has come to the end of the group. */
  lines(commands: readonly string[]): string[];
  /**
   * @param stderr what the tool said since the group began
   * @param before how many lines it had read before
   * @returns undefined: it is not at the group's end yet; else the first failure, if any
   */
  outcome(
    stderr: string,
    commands: readonly string[],
    before: number,
  ): { failure?: string | undefined } | undefined;
  /** The failure in what a tool said that ended before the group did. */
  lastWords?(
    stderr: string,
    commands: readonly string[],
    before: number,
  ): string | undefined;
}

interface Group {
  commands: readonly string[];
  resolve: () => void;
  reject: (error: Error) => void;
}

/** The tool ended before it had done what it was asked. */
export class ToolEnded extends SystemError {}

/**
 * Runs groups of commands, one group after the other. A process that ended, on its own or after a failure, is
 * started again for the next group.
 */
export class CommandShell {
  readonly #dialect: Dialect;
  readonly #waiting: Group[] = [];
  #running: Group | undefined;
  #child: ChildProcessWithoutNullStreams | undefined;
  #stderr = "";
  /** Lines the process has read before the running group. */
  #lines = 0;

  constructor(dialect: Dialect) {
    this.#dialect = dialect;
  }

  /**
   * @throws {ToolEnded} the tool is not there, or ended
   * @throws {SystemError} the first command that failed, in the tool's own words
   */
  run(commands: readonly string[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ commands, resolve, reject });
      this.#next();
    });
  }

  /** Ends the process once it has done what was asked so far. */
  async close(): Promise<void> {
    if (this.#running) {
      await this.run([]).catch(() => undefined);
    }
    const child = this.#child;
    this.#child = undefined;
    if (child) {
      const ended = once(child, "close").catch(() => undefined);
      child.stdin.end();
      await ended;
    }
  }

  #next(): void {
    if (this.#running) {
      return;
    }
    const group = (this.#running = this.#waiting.shift());
    if (!group) {
      return;
    }
    this.#child ??= this.#start();
    this.#stderr = "";
    const lines = this.#dialect.lines(group.commands);
    this.#child.stdin.write([...lines, ""].join("\n"));
  }

  #start(): ChildProcessWithoutNullStreams {
    const { program, args, env } = this.#dialect;
    const child = spawn(program, args, {
      env: { ...toolEnvironment(), ...env },
      stdio: "pipe",
    });
    this.#lines = 0;
    child.stdout.resume();
    child.stdout.on("error", () => undefined);
    child.stderr.on("error", () => undefined);
    child.stdin.on("error", () => undefined);
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      if (this.#child === child) {
        this.#stderr += text;
        this.#parse();
      }
    });
    child.on("error", (error) => {
      this.#ended(child, `cannot run ${program}: ${error.message}`);
    });
    child.on("close", () => {
      this.#ended(child, this.#stderr.trim() || `${program} ended`);
    });
    return child;
  }

  #parse(): void {
    const group = this.#running;
    if (!group) {
      return;
    }
    const { commands } = group;
    const dialect = this.#dialect;
    const outcome = dialect.outcome(this.#stderr, commands, this.#lines);
    if (!outcome) {
      if (this.#stderr.length > MAX_OUTPUT) {
        this.#child?.kill();
      }
      return;
    }
    this.#lines += dialect.lines(commands).length;
    const { failure } = outcome;
    if (failure !== undefined) {
      // The process remembers objects of the kernel's and might be wrong about one: the next one starts afresh.
      this.#child?.stdin.end();
      this.#child = undefined;
    }
    this.#settle(failure === undefined ? undefined : new SystemError(failure));
  }

  #ended(child: ChildProcessWithoutNullStreams, reason: string): void {
    if (this.#child !== child) {
      return;
    }
    this.#child = undefined;
    if (this.#running) {
      const words = this.#dialect.lastWords?.(
        this.#stderr,
        this.#running.commands,
        this.#lines,
      );
      this.#settle(
        words === undefined ? new ToolEnded(reason) : new SystemError(words),
      );
    }
  }

  #settle(error: SystemError | undefined): void {
    const group = this.#running;
    this.#running = undefined;
    if (error) {
      group?.reject(error);
    } else {
      group?.resolve();
    }
    this.#next();
  }
}
