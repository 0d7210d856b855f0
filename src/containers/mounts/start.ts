/** A container's mounts when it starts and ends: served by the host, put into place by the guest. */
import { mkdir, readdir, stat } from "node:fs/promises";
import type { ShareSetup } from "../../../protocol/index.js";
import { InvalidParameter } from "../../errors.js";
import type { Export, Volumes } from "../../volumes/index.js";
import type { ContainerRecord } from "../record.js";
import type { MountPoint } from "./mount-point.js";
import { checkSourceType } from "./resolve.js";

/** A start's mounts. */
export interface Mounts {
  /** What the guest is told. */
  shares: ShareSetup[];
  /**
   * Serves them to a machine, for as long as that runs.
   * @param socket where the machine takes the connection
   * @param directory a folder of the machine's own
   * @throws {SystemError} what cannot be served, and why
   */
  serve(socket: string, directory: string): Promise<void>;
  /** Passes the result on of what the guest does; from then on the volumes have their first content. */
  filledBy<T>(setup: Promise<T>): Promise<T>;
  /** To be called in any case: other containers may be waiting for a volume. */
  release(): void;
}

/**
 * Looks at the sources, and waits for the volumes that another container fills just now.
 * @throws {InvalidParameter} a source that is not there or cannot be used
 * @throws {NotFound} a volume is gone
 */
export async function prepareMounts(
  record: ContainerRecord,
  volumes: Volumes,
): Promise<Mounts> {
  const mounts = record.mounts ?? [];
  const exports: Export[] = [];
  for (const mount of mounts) exports.push(await exportOf(mount, volumes));
  const { fill, release } = await takeEmptyVolumes(mounts, volumes, exports);
  return {
    shares: mounts.map((mount, index) => ({
      type: "share",
      share: index,
      target: mount.destination,
      readonly: !mount.writable && !mount.readonlyNonRecursive,
      populate: mount.name !== undefined && fill.has(mount.name),
    })),
    serve: async (socket, directory) => {
      if (exports.length === 0) return;
      await volumes.serve(socket, directory, exports);
    },
    filledBy: async (setup) => {
      const result = await setup;
      // A volume that is empty later is so because somebody has emptied it.
      for (const mount of mounts) mount.populate = false;
      release();
      tellMounts(record, volumes, "mount");
      return result;
    },
    release,
  };
}

/** Tells of the volumes that a container has begun, or ceased, to use. */
export function tellMounts(
  record: ContainerRecord,
  volumes: Volumes,
  action: "mount" | "unmount",
): void {
  for (const mount of record.mounts ?? []) {
    if (mount.name === undefined) continue;
    const more: Record<string, string> =
      action === "mount"
        ? {
            destination: mount.destination,
            "read/write": String(mount.writable),
            propagation: mount.propagation,
          }
        : {};
    volumes.tell(mount.name, action, { container: record.id, ...more });
  }
}

async function exportOf(mount: MountPoint, volumes: Volumes): Promise<Export> {
  if (mount.name !== undefined) {
    // Filling it is done while it is served: that a mount is read-only is the guest's to see to then.
    const readonly = !mount.writable && !mount.populate;
    return volumes.exportOf(mount.name, mount.subpath ?? "", readonly);
  }
  const { source } = mount;
  if (mount.createSource) {
    await mkdir(source, { recursive: true, mode: 0o755 }).catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code === "EEXIST") return;
        throw new InvalidParameter(
          `error while creating mount source path '${source}': ${error.message}`,
        );
      },
    );
  }
  const file = await stat(source).catch(() => undefined);
  if (file === undefined) {
    throw new InvalidParameter(
      `invalid mount config for type "bind": bind source path does not exist: ${source}`,
    );
  }
  checkSourceType(source, file.mode);
  return {
    path: source,
    below: "",
    readonly: mount.writable
      ? "no"
      : mount.readonlyNonRecursive
        ? "root"
        : "tree",
    nonRecursive: mount.nonRecursive ?? false,
  };
}

/** An empty volume is filled by one container; the others that start with it wait until it is. */
async function takeEmptyVolumes(
  mounts: readonly MountPoint[],
  volumes: Volumes,
  exports: readonly Export[],
): Promise<{ fill: Set<string>; release: () => void }> {
  const fill = new Set<string>();
  const releases: (() => void)[] = [];
  const release = () => releases.splice(0).forEach((end) => end());
  // In the order of their names: two containers must not wait for each other.
  const candidates = mounts
    .map((mount, index) => ({ mount, path: exports[index]?.path ?? "" }))
    .filter(({ mount }) => mount.name !== undefined && mount.populate)
    .sort((a, b) => ((a.mount.name ?? "") < (b.mount.name ?? "") ? -1 : 1));
  for (const { mount, path } of candidates) {
    const name = mount.name ?? "";
    if (fill.has(name) || !(await isEmpty(path))) continue;
    releases.push(await turnOf(name, volumes));
    if (await isEmpty(path)) fill.add(name);
  }
  return { fill, release };
}

/** Waits for the volume, and gives the function that lets the next one have it. */
function turnOf(name: string, volumes: Volumes): Promise<() => void> {
  return new Promise((resolve) => {
    void volumes.alone(name, () => new Promise<void>((end) => resolve(end)));
  });
}

async function isEmpty(folder: string): Promise<boolean> {
  return (await readdir(folder).catch(() => [""])).length === 0;
}
