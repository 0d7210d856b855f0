/** What is mounted into a container, as its record keeps it and `inspect` shows it. */

/** A mount of a container's; a tmpfs is in its HostConfig alone. */
export interface MountPoint {
  type: "bind" | "volume";
  /** The volume's name. */
  name?: string;
  /** Absolute path on the host; for a volume, where the engine keeps it. */
  source: string;
  /** Absolute path in the container, without a slash at its end. */
  destination: string;
  /** What was behind the last colon of `-v`, as inspect shows it. */
  mode: string;
  writable: boolean;
  /** "rprivate" or "private" for a bind. */
  propagation: string;
  /** A volume that is empty gets the image's content. */
  populate: boolean;
  /** The volume was made for this container, and nobody named it: `rm -v` takes it along. */
  anonymous: boolean;
  /** A folder inside of the volume. */
  subpath?: string;
  /** What is mounted below the source on the host is not to be seen. */
  nonRecursive?: boolean;
  /** Read-only is the source alone, not what is mounted below it. */
  readonlyNonRecursive?: boolean;
  /** A source that is not there is made: `-v` does so, `--mount` does not. */
  createSource?: boolean;
}

/** How many folders deep a path is: what is mounted on a shallow one must not hide a deeper one. */
export function depth(path: string): number {
  return path.split("/").filter((part) => part !== "").length;
}

/** MountPoint of the specification. */
export function mountPointView(mount: MountPoint) {
  const { type, source, destination, mode, writable, propagation } = mount;
  return {
    Type: type,
    ...(mount.name === undefined ? {} : { Name: mount.name }),
    Source: source,
    Destination: destination,
    ...(type === "volume" ? { Driver: "local" } : {}),
    Mode: mode,
    RW: writable,
    Propagation: propagation,
  };
}
