/** Compose projects: a folder with a compose file, and the commands on it. */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { dockerEnv, uniqueName } from "./docker.js";
import { environment } from "./environment.js";

/** How a program that talks to the daemon ended, and what it wrote. */
export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end with the environment of a Docker client; killed after `timeout` ms. */
export function runClient(
  program: string,
  args: string[],
  options: {
    cwd?: string;
    env?: Record<string, string>;
    timeout?: number;
    onStart?: (child: ChildProcess) => void;
  } = {},
): Promise<Ended> {
  const { cwd, env, timeout = 120_000, onStart } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd,
      env: { ...dockerEnv(), ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      reject(
        new Error(
          `${program} ${args.join(" ")} did not end within ${timeout} ms:\n${stdout.slice(-1500)}${stderr.slice(-1500)}`,
        ),
      );
    }, timeout);
    child.once("error", reject);
    child.once("close", (code) => {
      clearTimeout(timer);
      resolve({ code, stdout, stderr });
    });
    onStart?.(child);
  });
}

export class ComposeProject {
  readonly name: string;
  readonly directory: string;
  /** The command's words before the project's own arguments. */
  readonly #command: string[];

  /**
   * @param files the project's files by name, the compose file among them
   * @param command `docker compose` unless it is to be another one
   */
  constructor(
    prefix: string,
    files: Record<string, string>,
    command = ["docker", "compose"],
  ) {
    this.name = uniqueName(prefix);
    this.directory = path.join(environment().directory, "projects", this.name);
    this.#command = command;
    mkdirSync(this.directory, { recursive: true });
    for (const [name, content] of Object.entries(files)) {
      writeFileSync(path.join(this.directory, name), content);
    }
  }

  /** Runs a Compose command to its end. */
  run(
    args: string[],
    options: Parameters<typeof runClient>[2] = {},
  ): Promise<Ended> {
    const [program = "", ...words] = this.#command;
    return runClient(program, [...words, "-p", this.name, ...args], {
      cwd: this.directory,
      ...options,
    });
  }

  /** The same, and the test fails unless it ends well. Returns stdout, trimmed. */
  async ok(
    args: string[],
    options: Parameters<typeof runClient>[2] = {},
  ): Promise<string> {
    const { code, stdout, stderr } = await this.run(args, options);
    assert.equal(
      code,
      0,
      `compose ${args.join(" ")} ended with ${code}:\n${stdout.slice(-2000)}${stderr.slice(-2000)}`,
    );
    return stdout.trim();
  }

  /** The name Compose v2 gives to a service's container. */
  container(service: string, number = 1): string {
    return `${this.name}-${service}-${number}`;
  }
}
