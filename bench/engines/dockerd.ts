/** Docker's own daemon with runc, on folders and a socket of its own. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { EngineApi } from "../engine-api.js";
import { Background, findProgram, run } from "../processes.js";
import { dockerCli, dockerEnvironment } from "./docker-cli.js";
import { Missing, type Engine, type Surroundings } from "./engine.js";

export async function startDockerd({
  scratch,
  space,
}: Surroundings): Promise<Engine> {
  const dockerd = findProgram("dockerd");
  if (!dockerd) {
    throw new Missing("dockerd is not installed");
  }
  if (process.getuid?.() !== 0) {
    throw new Missing("dockerd needs root");
  }
  const directory = await scratch.folder("dockerd");
  const socket = join(directory, "s");
  const config = join(directory, "daemon.json");
  await writeFile(config, "{}");
  const daemon = new Background(
    space.command([
      dockerd,
      ...["--config-file", config],
      ...["--data-root", join(directory, "data")],
      ...["--exec-root", join(directory, "exec")],
      ...["--pidfile", join(directory, "pid")],
      ...["--host", `unix://${socket}`],
      ...["--storage-driver", "overlay2"],
      ...["--exec-opt", "native.cgroupdriver=cgroupfs"],
    ]),
    join(directory, "log"),
  );
  const api = new EngineApi(socket);
  scratch.atEnd("dockerd", async () => {
    try {
      for (const id of await api.list()) await api.remove(id);
    } catch {
      // It has not started.
    }
    await daemon.stop();
  });
  try {
    await daemon.ready(() => api.ping());
  } catch (error) {
    throw new Missing(`dockerd does not start here: ${String(error)}`);
  }
  const environment = dockerEnvironment(scratch);
  const cli = (...args: string[]) => [...dockerCli(socket), ...args];
  const version = await run(cli("version", "-f", "{{.Server.Version}}"), {
    env: environment,
  });
  return {
    name: `dockerd ${version.trim().split("+")[0]} + runc`,
    environment,
    api,
    cli,
    pull: (reference) => cli("pull", "--quiet", reference),
  };
}
