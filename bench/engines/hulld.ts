/** hull itself, as built in this folder. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { EngineApi } from "../engine-api.js";
import { Background, run } from "../processes.js";
import { dockerCli, dockerEnvironment } from "./docker-cli.js";
import { Missing, type Engine, type Surroundings } from "./engine.js";

const HULLD = fileURLToPath(new URL("../../bin/hulld", import.meta.url));

export interface Hulld extends Engine {
  api: EngineApi;
  /** The daemon's process. */
  pid: number;
  /** Its folder: data root, exec root, socket, log. */
  directory: string;
  /** Ends it before the bench does. */
  stop(): Promise<void>;
}

export interface HulldOptions {
  /** Its folder's name, and with it its bridge's: a few letters. Daemons of different names run side by side. */
  name: string;
  flags: readonly string[];
  /** A folder with programs to be found before those of the PATH. */
  programs?: string;
}

/** @throws {Missing} it does not know one of the flags */
export async function startHulld(
  { scratch, space }: Surroundings,
  { name, flags, programs }: HulldOptions,
): Promise<Hulld> {
  await checkFlags(flags);
  const directory = await scratch.folder(name);
  const socket = join(directory, "s");
  const daemon = new Background(
    space.command([
      HULLD,
      ...["--data-root", join(directory, "data")],
      ...["--exec-root", join(directory, "exec")],
      ...["--bridge", `hb-${name}`],
      ...["-H", `unix://${socket}`],
      ...["--log-format", "json"],
      ...flags,
    ]),
    join(directory, "log"),
    programs ? { PATH: `${programs}:${process.env["PATH"]}` } : {},
  );
  const api = new EngineApi(socket);
  let stopping: Promise<void> | undefined;
  const stop = () =>
    (stopping ??= (async () => {
      try {
        for (const id of await api.list()) await api.remove(id);
      } catch {
        // It has not started.
      }
      await daemon.stop();
    })());
  scratch.atEnd(`hulld ${name}`, stop);
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
    pid: daemon.pid,
    directory,
    cli,
    pull: (reference) => cli("pull", "--quiet", reference),
    stop,
  };
}

async function checkFlags(flags: readonly string[]): Promise<void> {
  const help = await run([HULLD, "--help"]);
  for (const flag of flags) {
    const [name = ""] = flag.split("=");
    if (name.startsWith("-") && !help.includes(name)) {
      throw new Missing(`hulld has no ${name}`);
    }
  }
}
