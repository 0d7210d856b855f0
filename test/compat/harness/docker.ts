/** The real docker CLI, as a user types it. */
import { spawn, type ChildProcessByStdio } from "node:child_process";
import type { Readable, Writable } from "node:stream";
import { after } from "node:test";
import assert from "node:assert/strict";
import { Daemon } from "./daemon.js";
import { environment } from "./environment.js";

/** How a command ended and what it wrote. */
export interface Result {
  /** Exit code; 128 + signal number is not used: a killed CLI has `signal`. */
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  /** Standard output as bytes. */
  bytes: Buffer;
}

export interface RunOptions {
  /** Written to standard input, then closed. Without it standard input is empty. */
  stdin?: string | Buffer;
  /** Milliseconds after which the command is killed and the test fails. */
  timeout?: number;
  env?: Record<string, string>;
  /** Talk to another daemon than the shared one. */
  host?: string;
}

/** Environment of a CLI talking to the daemon under test. */
export function dockerEnv(options: RunOptions = {}): NodeJS.ProcessEnv {
  const { PATH, HOME, LANG } = process.env;
  return {
    PATH,
    HOME,
    LANG,
    TERM: "xterm",
    DOCKER_CONFIG: environment().dockerConfig,
    DOCKER_HOST: options.host ?? Daemon.shared().host,
    DOCKER_CLI_HINTS: "false",
    ...options.env,
  };
}

/** Runs `docker …args` and collects what it wrote. Fails only when it does not end in time. */
export async function docker(
  args: string[],
  options: RunOptions = {},
): Promise<Result> {
  const child = start(args, options);
  // A command that ends before it has read everything is no failure of the pipe.
  child.stdin.on("error", () => {});
  child.stdin.end(options.stdin ?? "");
  return child.result;
}

/** Like {@link docker}, and the test fails when the exit code is not 0. Returns stdout, trimmed. */
export async function dockerOk(
  args: string[],
  options: RunOptions = {},
): Promise<string> {
  const result = await docker(args, options);
  assert.equal(
    result.code,
    0,
    `docker ${args.join(" ")} ended with ${result.code}:\n${tail(result.stdout)}${tail(result.stderr)}`,
  );
  return result.stdout.trim();
}

/** The CLI for another daemon than the shared one: to its end, and to a good end. */
export function cliOf(daemon: Daemon, defaults: RunOptions = {}) {
  const options = (own: RunOptions) => ({
    host: daemon.host,
    ...defaults,
    ...own,
  });
  return {
    docker: (args: string[], own: RunOptions = {}) =>
      docker(args, options(own)),
    ok: (args: string[], own: RunOptions = {}) => dockerOk(args, options(own)),
  };
}

/** A CLI under way, for what happens in between. */
export interface RunningDocker {
  stdin: Writable;
  /** What it wrote so far. */
  readonly stdout: string;
  readonly stderr: string;
  kill(signal: NodeJS.Signals): void;
  /** Resolves when stdout matches. */
  stdoutMatches(pattern: RegExp, timeout?: number): Promise<void>;
  result: Promise<Result>;
}

const DEFAULT_TIMEOUT = 60_000;

/** Starts `docker …args`. */
export function start(args: string[], options: RunOptions = {}): RunningDocker {
  const child: ChildProcessByStdio<Writable, Readable, Readable> = spawn(
    "docker",
    args,
    {
      env: dockerEnv(options),
      stdio: ["pipe", "pipe", "pipe"],
    },
  );
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  const watchers = new Set<() => void>();
  const collect = (into: Buffer[]) => (chunk: Buffer) => {
    into.push(chunk);
    for (const watcher of watchers) watcher();
  };
  child.stdout.on("data", collect(out));
  child.stderr.on("data", collect(err));
  const text = (chunks: Buffer[]) => Buffer.concat(chunks).toString();

  const limit = options.timeout ?? DEFAULT_TIMEOUT;
  const result = new Promise<Result>((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      reject(
        new Error(
          `docker ${args.join(" ")} did not end within ${limit} ms; so far:\n${tail(text(out))}${tail(text(err))}`,
        ),
      );
    }, limit);
    child.once("error", reject);
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      const bytes = Buffer.concat(out);
      resolve({
        code,
        signal,
        stdout: bytes.toString(),
        stderr: text(err),
        bytes,
      });
    });
  });
  // Whoever starts a command may look at it before its result.
  result.catch(() => {});

  return {
    stdin: child.stdin,
    get stdout() {
      return text(out);
    },
    get stderr() {
      return text(err);
    },
    kill: (signal) => void child.kill(signal),
    stdoutMatches: (pattern, timeout = 30_000) =>
      new Promise((resolve, reject) => {
        const stop = (outcome: () => void) => {
          clearTimeout(timer);
          watchers.delete(look);
          outcome();
        };
        const look = () => {
          if (pattern.test(text(out))) stop(resolve);
        };
        const timer = setTimeout(
          () =>
            stop(() =>
              reject(
                new Error(
                  `docker ${args.join(" ")} wrote nothing like ${String(pattern)} within ${timeout} ms, but:\n${tail(text(out))}${tail(text(err))}`,
                ),
              ),
            ),
          timeout,
        );
        watchers.add(look);
        look();
      }),
    result,
  };
}

/** The end of a long output, for messages. */
function tail(text: string): string {
  return text.length > 2000 ? `…${text.slice(-2000)}` : text;
}

/** `docker inspect` of one object, parsed. */
export async function inspect<T = ContainerInspect>(name: string): Promise<T> {
  const [first] = JSON.parse(await dockerOk(["inspect", name])) as [T];
  return first;
}

/** The fields of a container's inspect that tests read. */
export interface ContainerInspect {
  Id: string;
  Name: string;
  Created: string;
  Path: string;
  Args: string[];
  Image: string;
  RestartCount: number;
  State: {
    Status: string;
    Running: boolean;
    Paused: boolean;
    OOMKilled: boolean;
    Pid: number;
    ExitCode: number;
    Error: string;
    StartedAt: string;
    FinishedAt: string;
  };
  Config: {
    Hostname: string;
    User: string;
    Env: string[];
    Cmd: string[] | null;
    Entrypoint: string[] | null;
    Image: string;
    WorkingDir: string;
    Labels: Record<string, string>;
    Tty: boolean;
    OpenStdin: boolean;
    StopSignal?: string;
  };
  HostConfig: {
    Memory: number;
    NanoCpus: number;
    AutoRemove: boolean;
    RestartPolicy: { Name: string; MaximumRetryCount: number };
    LogConfig: { Type: string; Config: Record<string, string> };
    NetworkMode: string;
    ReadonlyRootfs: boolean;
  };
  NetworkSettings: {
    Networks: Record<
      string,
      { IPAddress: string; Gateway: string; MacAddress: string }
    >;
  };
}

let counter = 0;

/** A name no other test uses. */
export function uniqueName(prefix: string): string {
  counter += 1;
  return `${prefix}-${process.pid}-${counter}`;
}

/** Removes containers whatever their state; for the end of a test. */
export async function removeContainers(...names: string[]): Promise<void> {
  if (names.length > 0) await docker(["rm", "-f", ...names]);
}

/** Names for the containers of a test file, which are removed at its end; `containers` takes others along. */
export function ownContainers() {
  const containers: string[] = [];
  after(() => removeContainers(...containers));
  const named = (prefix: string): string => {
    const name = uniqueName(prefix);
    containers.push(name);
    return name;
  };
  return { named, containers };
}
