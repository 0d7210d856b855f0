/** The docker CLI on a real terminal: what a user sees and types. */
import { spawn, type ChildProcessByStdio } from "node:child_process";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { dockerEnv, type RunOptions } from "./docker.js";

const PTY = fileURLToPath(new URL("terminal.py", import.meta.url));

/** A command on a terminal. */
export interface Terminal {
  /** All that was shown so far. */
  readonly screen: string;
  /** Types text; "\x03" is Ctrl-C, "\x10\x11" Ctrl-P Ctrl-Q. */
  type(text: string): void;
  /** Changes the window's size. */
  resize(rows: number, columns: number): void;
  /** Resolves when what was shown since the last call matches. */
  shows(pattern: RegExp, timeout?: number): Promise<RegExpExecArray>;
  /** Exit code of the command. */
  exit: Promise<number | null>;
  kill(): void;
}

/** Starts `docker …args` on a terminal of 24 rows and 80 columns, or as told. */
export function terminal(
  args: string[],
  options: RunOptions & { rows?: number; columns?: number } = {},
): Terminal {
  return terminalOf(["docker", ...args], options);
}

/** Starts any command on a terminal. */
export function terminalOf(
  command: string[],
  options: RunOptions & { rows?: number; columns?: number } = {},
): Terminal {
  const child = spawn(
    "python3",
    [
      PTY,
      String(options.rows ?? 24),
      String(options.columns ?? 80),
      ...command,
    ],
    { env: dockerEnv(options), stdio: ["pipe", "pipe", "inherit", "pipe"] },
  ) as ChildProcessByStdio<Writable, Readable, null>;
  const orders = (child.stdio as unknown[])[3] as Writable;
  orders.on("error", () => {});
  child.stdin.on("error", () => {});
  let screen = "";
  let seen = 0;
  const watchers = new Set<() => void>();
  child.stdout.on("data", (chunk: Buffer) => {
    screen += chunk.toString();
    for (const watcher of watchers) watcher();
  });
  const limit = options.timeout ?? 60_000;
  const exit = new Promise<number | null>((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      reject(
        new Error(
          `${command.join(" ")} did not end within ${limit} ms; screen:\n${screen}`,
        ),
      );
    }, limit);
    child.once("error", reject);
    child.once("close", (code) => {
      clearTimeout(timer);
      resolve(code);
    });
  });
  exit.catch(() => {});
  return {
    get screen() {
      return screen;
    },
    type: (text) => void child.stdin.write(text),
    resize: (rows, columns) => void orders.write(`${rows} ${columns}\n`),
    shows: (pattern, timeout = 30_000) =>
      new Promise((resolve, reject) => {
        const stop = () => {
          clearTimeout(timer);
          watchers.delete(look);
        };
        const look = () => {
          const match = pattern.exec(screen.slice(seen));
          if (!match) return;
          stop();
          seen += match.index + match[0].length;
          resolve(match);
        };
        const timer = setTimeout(() => {
          stop();
          reject(
            new Error(
              `the terminal showed nothing like ${String(pattern)} within ${timeout} ms, but:\n${screen.slice(seen)}`,
            ),
          );
        }, timeout);
        watchers.add(look);
        look();
      }),
    exit,
    kill: () => void child.kill("SIGKILL"),
  };
}
