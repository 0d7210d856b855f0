/** podman with runc, on folders of its own. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { findProgram, run } from "../processes.js";
import { Missing, type Engine, type Surroundings } from "./engine.js";

export async function findPodman({
  scratch,
  space,
}: Surroundings): Promise<Engine> {
  const podman = findProgram("podman");
  if (!podman || !findProgram("runc")) {
    throw new Missing(`${podman ? "runc" : "podman"} is not installed`);
  }
  if (process.getuid?.() !== 0) {
    throw new Missing("podman is measured as root only");
  }
  const directory = await scratch.folder("podman");
  // Its default limits are above what some hosts allow anybody.
  const config = join(directory, "containers.conf");
  await writeFile(
    config,
    '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n',
  );
  const environment = { CONTAINERS_CONF: config };
  // crun is not used: it does not run on hosts with hybrid cgroups.
  const cli = (...args: string[]) =>
    space.command([
      podman,
      ...["--root", join(directory, "root")],
      ...["--runroot", join(directory, "run")],
      ...["--tmpdir", join(directory, "tmp")],
      ...["--network-config-dir", join(directory, "networks")],
      ...["--cgroup-manager", "cgroupfs"],
      ...["--runtime", "runc"],
      ...["--storage-driver", "overlay"],
      ...args,
    ]);
  scratch.atEnd("podman", async () => {
    await run(cli("rm", "--all", "--force", "--time", "0"), {
      env: environment,
    });
    await run(cli("rmi", "--all", "--force"), { env: environment });
    await run(["umount", join(directory, "root/overlay")]).catch(
      () => undefined,
    );
  });
  try {
    const version = await run(
      cli("version", "--format", "{{.Client.Version}}"),
    );
    return {
      name: `podman ${version.trim()} + runc`,
      environment,
      cli,
      pull: (reference) =>
        cli("pull", "--quiet", "--tls-verify=false", reference),
    };
  } catch (error) {
    throw new Missing(`podman does not work here: ${String(error)}`);
  }
}
