/** hull itself, as built in this folder. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { EngineApi } from "../engine-api.js";
import { Background, run } from "../processes.js";
import { dockerCli, dockerEnvironment } from "./docker-cli.js";
import type { Engine, Surroundings } from "./engine.js";

const HULLD = fileURLToPath(new URL("../../bin/hulld", import.meta.url));

export interface Hulld extends Engine {
  api: EngineApi;
  /** Its log: JSON lines with the spans of every start. */
  log: string;
}

export async function startHulld(
  { scratch, space }: Surroundings,
  flags: readonly string[],
): Promise<Hulld> {
  const directory = await scratch.folder("hull");
  const socket = join(directory, "s");
  const log = join(directory, "log");
  const daemon = new Background(
    space.command([
      HULLD,
      ...["--data-root", join(directory, "data")],
      ...["--exec-root", join(directory, "exec")],
      ...["-H", `unix://${socket}`],
      ...["--debug", "--log-format", "json"],
      ...flags,
    ]),
    log,
  );
  const api = new EngineApi(socket);
  scratch.atEnd("hulld", async () => {
    try {
      for (const id of await api.list()) await api.remove(id);
    } catch {
      // It has not started.
    }
    await daemon.stop();
  });
  await daemon.ready(() => api.ping(), 180_000);
  const environment = dockerEnvironment(scratch);
  const cli = (...args: string[]) => [...dockerCli(socket), ...args];
  const version = await run(cli("version", "-f", "{{.Server.Version}}"), {
    env: environment,
  });
  return {
    name: `hull ${version.trim()}`,
    environment,
    api,
    log,
    cli,
    pull: (reference) => cli("pull", "--quiet", reference),
  };
}
