/** From what a user and the image ask for to a new container's mounts; volumes are made on the way. */
import { constants, lstatSync, statSync } from "node:fs";
import { Conflict, InvalidParameter, NotFound } from "../../errors.js";
import type { Volumes } from "../../volumes/index.js";
import { MAX_EXPORTS } from "../../volumes/share-server.js";
import type { CreateRequest } from "../create-request.js";
import type { MountPoint } from "./mount-point.js";
import {
  cleanPath,
  parseBind,
  parseMount,
  type Wanted,
} from "./specification.js";

/** What {@link resolveMounts} works from. */
export interface MountSources {
  volumes: Volumes;
  request: CreateRequest;
  /** Paths for which the image, or the user without a source, wants a volume. */
  volumePaths: string[];
  /** The mounts of another container, by a reference to it. */
  mountsOf: (reference: string) => readonly MountPoint[];
}

/** A container's mounts, and how to let go of their volumes once its record is known. */
export interface ResolvedMounts {
  mounts: MountPoint[];
  release: () => void;
  /** Takes back the volumes that were made and that nobody named. */
  undo: () => Promise<void>;
}

/**
 * @throws {InvalidParameter} what cannot be mounted, in Docker's words
 * @throws {NotFound} an unknown container, or driver
 */
export async function resolveMounts(
  sources: MountSources,
): Promise<ResolvedMounts> {
  const { volumes, request, volumePaths, mountsOf } = sources;
  const host = request.HostConfig ?? {};
  const others = (host.VolumesFrom ?? []).flatMap((entry) =>
    mountsFrom(entry, mountsOf),
  );
  const wanted = [
    ...(host.Binds ?? []).map(parseBind),
    ...(host.Mounts ?? []).flatMap((mount) => parseMount(mount) ?? []),
  ];
  checkTwice(wanted, request);
  checkTmpfs(request);
  for (const one of wanted) if (one.type === "bind") checkSource(one);

  const made = new Map(others.map((mount) => [mount.destination, mount]));
  const releases: (() => void)[] = [];
  const anonymous: string[] = [];
  const release = () => releases.splice(0).forEach((each) => each());
  const undo = async () => {
    release();
    for (const name of anonymous) {
      await volumes.remove(name, true).catch(() => undefined);
    }
  };
  try {
    const taken = new Set([
      ...made.keys(),
      ...wanted.map(({ destination }) => destination),
      ...tmpfsTargets(request),
    ]);
    const unnamed = volumePaths
      .map((text) => cleanPath(checkVolumePath(text)))
      .filter((destination) => !taken.has(destination))
      .map(anonymousVolume);
    for (const one of [...wanted, ...unnamed]) {
      const mount =
        one.type === "bind"
          ? bindMount(one)
          : await volumeMount(one, volumes, anonymous);
      if (mount.name !== undefined) releases.push(volumes.hold(mount.name));
      made.set(mount.destination, mount);
    }
  } catch (error) {
    await undo();
    throw error;
  }
  if (made.size > MAX_EXPORTS) {
    await undo();
    throw new InvalidParameter(
      `a container can have ${MAX_EXPORTS} binds and volumes, not ${made.size}`,
    );
  }
  return { mounts: [...made.values()], release, undo };
}

/** Takes along, with a container, the volumes that were made for it and that nobody else has. */
export async function removeAnonymousVolumes(
  mounts: readonly MountPoint[],
  volumes: Volumes,
): Promise<void> {
  for (const { name, anonymous } of mounts) {
    if (name === undefined || !anonymous) continue;
    await volumes.remove(name, true).catch((error: unknown) => {
      if (!(error instanceof Conflict)) throw error;
    });
  }
}

function anonymousVolume(destination: string): Wanted {
  return {
    type: "volume",
    name: undefined,
    destination,
    mode: "",
    writable: true,
    populate: true,
    subpath: "",
    driver: undefined,
    labels: undefined,
    options: undefined,
  };
}

function bindMount(one: Wanted & { type: "bind" }): MountPoint {
  return {
    type: "bind",
    source: one.source,
    destination: one.destination,
    mode: one.mode,
    writable: one.writable,
    propagation: one.propagation,
    populate: false,
    anonymous: false,
    ...(one.nonRecursive ? { nonRecursive: true } : {}),
    ...(one.readonlyNonRecursive ? { readonlyNonRecursive: true } : {}),
    ...(one.createSource ? { createSource: true } : {}),
  };
}

async function volumeMount(
  one: Wanted & { type: "volume" },
  volumes: Volumes,
  anonymous: string[],
): Promise<MountPoint> {
  const volume = await volumes.create(one);
  if (one.name === undefined) anonymous.push(volume.name);
  return {
    type: "volume",
    name: volume.name,
    source: volume.mountpoint,
    destination: one.destination,
    mode: one.mode || (one.name === undefined ? "" : "z"),
    writable: one.writable,
    propagation: "",
    populate: one.populate,
    anonymous: one.name === undefined,
    ...(one.subpath ? { subpath: one.subpath } : {}),
  };
}

/** "container[:ro|rw]" of HostConfig.VolumesFrom. */
function mountsFrom(
  entry: string,
  mountsOf: MountSources["mountsOf"],
): MountPoint[] {
  const colon = entry.indexOf(":");
  const reference = colon < 0 ? entry : entry.slice(0, colon);
  const mode = colon < 0 ? "rw" : entry.slice(colon + 1);
  if (reference === "") {
    throw new InvalidParameter("invalid volumes-from specification: " + entry);
  }
  const options = mode.split(",");
  if (!options.every((one) => ["ro", "rw", "z", "Z"].includes(one))) {
    throw new InvalidParameter(`invalid mode: ${mode}`);
  }
  const readonly = options.includes("ro");
  const sources = (name: string) => {
    try {
      return mountsOf(name);
    } catch (error) {
      // The Engine does not say 404 here: to a client that means that the image is not there.
      throw error instanceof NotFound
        ? new InvalidParameter(error.message)
        : error;
    }
  };
  return sources(reference).map((mount) => ({
    ...mount,
    mode: "",
    writable: mount.writable && !readonly,
    populate: false,
  }));
}

function checkTwice(wanted: Wanted[], request: CreateRequest): void {
  const seen = new Set<string>();
  const all = [
    ...wanted.map(({ destination }) => destination),
    ...tmpfsTargets(request),
  ];
  for (const destination of all) {
    if (seen.has(destination)) {
      throw new InvalidParameter(`Duplicate mount point: ${destination}`);
    }
    seen.add(destination);
  }
}

function tmpfsTargets({ HostConfig: host = {} }: CreateRequest): string[] {
  return [
    ...Object.keys(host.Tmpfs ?? {}),
    ...(host.Mounts ?? [])
      .filter((mount) => mount.Type === "tmpfs")
      .map((mount) => mount.Target ?? ""),
  ].map(cleanPath);
}

/** What tmpfs is told besides flags of mounts (moby pkg/mount). */
const TMPFS_DATA = ["size", "mode", "uid", "gid", "nr_inodes", "mpol"];
const MOUNT_FLAGS =
  "defaults ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime noatime diratime nodiratime bind rbind unbindable runbindable private rprivate shared rshared slave rslave relatime norelatime strictatime nostrictatime".split(
    " ",
  );

/** @throws {InvalidParameter} an option of --tmpfs that there is not, in Docker's words */
function checkTmpfs({ HostConfig: host = {} }: CreateRequest): void {
  const options = Object.values(host.Tmpfs ?? {})
    .flatMap((text) => text.split(","))
    .filter((option) => option !== "");
  for (const option of options) {
    const [name = "", ...value] = option.split("=");
    const known = value.length > 0 ? TMPFS_DATA : MOUNT_FLAGS;
    if (!known.includes(name)) {
      throw new InvalidParameter(
        `invalid tmpfs option ${JSON.stringify(option)}`,
      );
    }
  }
}

function checkVolumePath(text: string): string {
  if (!text.startsWith("/")) {
    throw new InvalidParameter(
      `invalid mount config for type "volume": invalid mount path: '${text}' mount path must be absolute`,
    );
  }
  if (cleanPath(text) === "/") {
    throw new InvalidParameter(
      `invalid mount config for type "volume": invalid specification: destination can't be '/'`,
    );
  }
  return text;
}

/** `--mount` wants a source that is there; what a guest cannot use is refused in either form. */
function checkSource(bind: Wanted & { type: "bind" }): void {
  const file = statSync(bind.source, { throwIfNoEntry: false });
  if (file === undefined) {
    // A dangling link is there, but nothing can be made or mounted in its place.
    const dangling = lstatSync(bind.source, { throwIfNoEntry: false });
    if (bind.createSource && dangling === undefined) return;
    throw new InvalidParameter(
      `invalid mount config for type "bind": bind source path does not exist: ${bind.source}`,
    );
  }
  checkSourceType(bind.source, file.mode);
}

/**
 * @param mode the source's st_mode
 * @throws {InvalidParameter} it is neither file nor folder
 */
export function checkSourceType(source: string, mode: number): void {
  const type = mode & constants.S_IFMT;
  if (type === constants.S_IFREG || type === constants.S_IFDIR) return;
  const kind =
    type === constants.S_IFSOCK
      ? "a socket"
      : type === constants.S_IFIFO
        ? "a named pipe"
        : "a device";
  throw new InvalidParameter(
    `invalid mount config for type "bind": ${kind} of the host cannot be used in a virtual machine: ${source}`,
  );
}
