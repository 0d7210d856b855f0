/** The docker command, the same one for hull and its peer. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { findProgram } from "../processes.js";
import type { Scratch } from "../scratch.js";

export function dockerCli(socket: string): string[] {
  const docker = findProgram("docker");
  if (!docker) {
    throw new Error("the docker command is missing");
  }
  return [docker, "--host", `unix://${socket}`];
}

/** Nobody's settings, credentials, contexts or plugins. */
export function dockerEnvironment(scratch: Scratch): Record<string, string> {
  const config = join(scratch.directory, "docker-config");
  mkdirSync(config, { recursive: true });
  return { DOCKER_CONFIG: config, DOCKER_HOST: "", DOCKER_CONTEXT: "" };
}
