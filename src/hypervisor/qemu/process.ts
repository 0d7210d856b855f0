import { spawn } from "node:child_process";
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { Unavailable } from "../../errors.js";
import {
  endOf,
  identify,
  isRunning,
  type ProcessEnd,
  type ProcessIdentity,
} from "./process-identity.js";

/** A QEMU process, whether this daemon or an earlier one started it. */
export interface QemuProcess {
  readonly identity: ProcessIdentity;
  readonly ended: Promise<ProcessEnd>;
  /** Ends it by SIGKILL; `ended` resolves when it is gone. */
  kill(): Promise<void>;
}

/** The descriptor that a launcher which forks a machine answers at. */
export const ANSWER = 3;

const LOG_NAME = "qemu.log";
const LOG_TAIL = 4096;

/**
 * Starts QEMU in a session of its own, so that it outlives the daemon; what it says goes to a file in
 * the machine's directory.
 * @param inherited become its descriptors from 3 on; undefined: /dev/null
 * @throws {Unavailable} there is no such program, or it cannot be executed
 */
export async function startProcess(
  binary: string,
  args: string[],
  directory: string,
  inherited: (number | undefined)[] = [],
): Promise<QemuProcess> {
  const log = await open(join(directory, LOG_NAME), "a", 0o600);
  try {
    const child = spawn(binary, args, {
      cwd: directory,
      detached: true,
      stdio: [
        "ignore",
        log.fd,
        log.fd,
        ...inherited.map((descriptor) => descriptor ?? ("ignore" as const)),
      ],
      env: { PATH: process.env["PATH"] },
    });
    const ended = new Promise<ProcessEnd>((resolve) => {
      child.once("exit", (code, signal) =>
        resolve({
          ...(code === null ? {} : { code }),
          ...(signal === null ? {} : { signal }),
        }),
      );
    });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.on("error", (error: NodeJS.ErrnoException) =>
        reject(
          new Unavailable(
            error.code === "ENOENT"
              ? `${binary} is not installed`
              : `${binary} cannot be started: ${error.message}`,
          ),
        ),
      );
    });
    child.unref();
    const pid = child.pid as number;
    const identity = await identify(pid);
    return {
      // A process that ended at once has no identity left; nobody will ask for it either.
      identity: identity ?? { pid, startTime: "", hostBootId: "" },
      ended,
      kill: async () => {
        child.ref();
        child.kill("SIGKILL");
        await ended;
      },
    };
  } finally {
    await log.close();
  }
}

/**
 * Runs a launcher that has another process fork a QEMU, and ends.
 * @param args its arguments; it writes the process ID to descriptor `ANSWER`
 * @param connectionClosed of the process's QMP socket, see `adoptProcess`
 * @throws {Unavailable} it could not, in its words
 */
export async function forkProcess(
  launcher: string,
  args: string[],
  directory: string,
  connectionClosed: Promise<void>,
): Promise<QemuProcess> {
  const log = await open(join(directory, LOG_NAME), "a", 0o600);
  let answer = "";
  let words = "";
  try {
    const child = spawn(launcher, args, {
      cwd: directory,
      stdio: ["ignore", log.fd, "pipe", "pipe"],
      env: { PATH: process.env["PATH"] },
    });
    const collect = (stream: unknown, add: (text: string) => void) =>
      (stream as Readable)
        .setEncoding("utf8")
        .on("data", (text: string) => add(text));
    collect(child.stdio[2], (text) => (words += text));
    collect(child.stdio[ANSWER], (text) => (answer += text));
    await new Promise<void>((resolve, reject) => {
      child.once("close", () => resolve());
      child.once("error", reject);
    });
  } finally {
    await log.close();
  }
  const identity = answer ? await identify(Number(answer)) : undefined;
  if (!identity) {
    throw new Unavailable(words.trim() || "a forked machine ended at once");
  }
  return adoptProcess(identity, connectionClosed);
}

/**
 * A process that is another one's child: an earlier daemon's, or a zygote's. The kernel tells only parents
 * of an end, so the QMP connection's end is what says when to look.
 */
export function adoptProcess(
  identity: ProcessIdentity,
  connectionClosed: Promise<void>,
): QemuProcess {
  const gone = async () => {
    for (
      let pause = 1;
      await isRunning(identity);
      pause = Math.min(2 * pause, 1000)
    ) {
      await sleep(pause, undefined, { ref: false });
    }
    return endOf(identity);
  };
  const ended = connectionClosed.then(gone);
  return {
    identity,
    ended,
    kill: async () => {
      if (await isRunning(identity)) {
        try {
          process.kill(identity.pid, "SIGKILL");
        } catch {
          // It ended in between.
        }
      }
      await gone();
    },
  };
}

/** The last that QEMU said, without its name before each line; "" when it said nothing. */
export async function lastWords(directory: string): Promise<string> {
  let log: FileHandle | undefined;
  try {
    log = await open(join(directory, LOG_NAME), "r");
    const { size } = await log.stat();
    const position = Math.max(0, size - LOG_TAIL);
    const { buffer, bytesRead } = await log.read({
      buffer: Buffer.alloc(LOG_TAIL),
      position,
    });
    return buffer
      .toString("utf8", 0, bytesRead)
      .split("\n")
      .map((line) => line.replace(/^qemu[\w.-]*: /, "").trim())
      .filter((line) => line !== "" && !/\bwarning: /.test(line))
      .join("; ");
  } catch {
    return "";
  } finally {
    await log?.close();
  }
}
