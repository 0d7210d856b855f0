import { type ChildProcess, spawn } from "node:child_process";
import { basename } from "node:path";
import type { Readable, Writable } from "node:stream";

/** How much of a program's complaints is kept. */
const MAX_STDERR = 4096;

/** A program that works on streams: no shell, bounded messages, killed when no longer wanted. */
export interface Child {
  stdin: Writable;
  stdout: Readable;
  /**
   * Resolves when it has ended well.
   * Rejects with its own last words otherwise, or when it could not be started.
   */
  done: Promise<void>;
  kill(): void;
}

export interface ChildOptions {
  env?: NodeJS.ProcessEnv;
  /** Words on stderr are a failure whatever the exit status says. */
  silent?: boolean;
}

/** Starts a program with pipes at stdin and stdout. */
export function start(
  program: string,
  args: readonly string[],
  options: ChildOptions = {},
): Child {
  const child: ChildProcess = spawn(program, args, {
    stdio: ["pipe", "pipe", "pipe"],
    env: { PATH: process.env["PATH"], LC_ALL: "C", ...options.env },
  });
  const { stdin, stdout, stderr } = child as ChildProcess & {
    stdin: Writable;
    stdout: Readable;
    stderr: Readable;
  };
  let words = "";
  stderr.on("data", (chunk: Buffer) => {
    words = (words + chunk.toString("latin1")).slice(-MAX_STDERR);
  });
  // The end of the program tells what went wrong; broken pipes only follow from it.
  for (const stream of [stdin, stdout, stderr]) stream.on("error", () => {});
  const done = new Promise<void>((resolve, reject) => {
    child.on("error", (error) => {
      reject(new Error(`cannot start ${program}: ${error.message}`));
    });
    child.on("close", (code, signal) => {
      const said = words
        .trim()
        .split(/\s*\n\s*/)
        .join("; ");
      if (code === 0 && (said === "" || options.silent !== true)) resolve();
      else
        reject(
          new Error(`${basename(program)} ${howEnded(code, signal)}: ${said}`),
        );
    });
  });
  // Callers always await it, but perhaps after another failure.
  done.catch(() => {});
  return {
    stdin,
    stdout,
    done,
    kill: () => {
      child.kill("SIGKILL");
    },
  };
}

function howEnded(code: number | null, signal: string | null): string {
  if (code === 0) return "failed";
  return signal === null ? `exited with ${code}` : `was ended by ${signal}`;
}
