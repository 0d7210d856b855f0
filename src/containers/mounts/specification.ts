/**
 * What a user asks to have mounted, in the two forms of the Engine API: lines as of `-v` (HostConfig.Binds)
 * and objects as of `--mount` (HostConfig.Mounts). The rules and the words are moby's
 * (volume/mounts/linux_parser.go, validate.go).
 */
import path from "node:path";
import { z } from "zod";
import { InvalidParameter } from "../../errors.js";

const optional = <T extends z.ZodType>(schema: T) =>
  schema
    .nullish()
    .transform((value) => value ?? undefined)
    .optional();

/** Mount of the specification. */
export const mountSchema = z.looseObject({
  Type: optional(z.string()),
  Source: optional(z.string()),
  Target: optional(z.string()),
  ReadOnly: optional(z.boolean()),
  Consistency: optional(z.string()),
  BindOptions: optional(
    z.object({
      Propagation: optional(z.string()),
      NonRecursive: optional(z.boolean()),
      CreateMountpoint: optional(z.boolean()),
      ReadOnlyNonRecursive: optional(z.boolean()),
      ReadOnlyForceRecursive: optional(z.boolean()),
    }),
  ),
  VolumeOptions: optional(
    z.object({
      NoCopy: optional(z.boolean()),
      Labels: optional(z.record(z.string(), z.string())),
      DriverConfig: optional(
        z.object({
          Name: optional(z.string()),
          Options: optional(z.record(z.string(), z.string())),
        }),
      ),
      Subpath: optional(z.string()),
    }),
  ),
  TmpfsOptions: optional(
    z.looseObject({
      SizeBytes: optional(z.int()),
      Mode: optional(z.int()),
    }),
  ),
});
export type MountRequest = z.output<typeof mountSchema>;

/** A bind or a volume that is asked for, before a volume is made for it. */
export type Wanted =
  | {
      type: "bind";
      source: string;
      destination: string;
      mode: string;
      writable: boolean;
      propagation: string;
      createSource: boolean;
      nonRecursive: boolean;
      readonlyNonRecursive: boolean;
    }
  | {
      type: "volume";
      /** undefined: nobody named it. */
      name: string | undefined;
      destination: string;
      mode: string;
      writable: boolean;
      populate: boolean;
      subpath: string;
      driver: string | undefined;
      labels: Record<string, string> | undefined;
      options: Record<string, string> | undefined;
    };

const ACCESS = ["ro", "rw"];
const LABELS = ["z", "Z"];
const CONSISTENCY = ["consistent", "cached", "delegated"];
const PROPAGATION = [
  "private",
  "rprivate",
  "slave",
  "rslave",
  "shared",
  "rshared",
];

/**
 * One line of HostConfig.Binds: "source:target[:options]", "target[:options]".
 * @throws {InvalidParameter}
 */
export function parseBind(line: string): Wanted {
  const invalid = (why?: string) =>
    new InvalidParameter(
      `invalid volume specification: '${line}'` + (why ? `: ${why}` : ""),
    );
  const parts = line.split(":");
  if (parts.length > 3 || parts[0] === "") throw invalid();
  let source: string | undefined;
  let target: string | undefined;
  let mode = "";
  if (parts.length === 1) target = parts[0];
  else if (parts.length === 2 && isMode(parts[1] ?? "")) {
    [target, mode = ""] = parts;
  } else [source, target, mode = ""] = parts;
  if (parts.length === 3 && !isMode(mode)) {
    throw new InvalidParameter(`invalid mode: ${mode}`);
  }
  if (!target) throw invalid();
  const bind = source?.startsWith("/") ?? false;
  const type = bind ? "bind" : "volume";
  const destination = checkTarget(target, (why) =>
    invalid(`invalid mount config for type "${type}": ${why}`),
  );
  const options = mode.split(",").filter((option) => option !== "");
  const writable = !options.includes("ro");
  if (bind) {
    if (options.includes("nocopy")) throw invalid();
    const propagation = options.find((one) => PROPAGATION.includes(one));
    return {
      type: "bind",
      source: cleanPath(source ?? ""),
      destination,
      mode,
      writable,
      propagation: checkPropagation(propagation),
      createSource: true,
      nonRecursive: false,
      readonlyNonRecursive: false,
    };
  }
  if (options.some((one) => PROPAGATION.includes(one))) throw invalid();
  return {
    type: "volume",
    name: source,
    destination,
    mode,
    writable,
    populate: !options.includes("nocopy"),
    subpath: "",
    driver: undefined,
    labels: undefined,
    options: undefined,
  };
}

/** At most one of each kind. */
function isMode(text: string): boolean {
  if (text === "") return false;
  const count = new Map<string[], number>();
  const kinds = [ACCESS, LABELS, CONSISTENCY, PROPAGATION, ["nocopy"]];
  return text.split(",").every((option) => {
    const kind = kinds.find((one) => one.includes(option));
    if (!kind || count.has(kind)) return false;
    count.set(kind, 1);
    return true;
  });
}

/**
 * One of HostConfig.Mounts; undefined for a tmpfs, which has no source.
 * @throws {InvalidParameter}
 */
export function parseMount(mount: MountRequest): Wanted | undefined {
  const type = mount.Type ?? "";
  const invalid = (why: string) =>
    new InvalidParameter(`invalid mount config for type "${type}": ${why}`);
  const source = mount.Source ?? "";
  const extra = (field: keyof MountRequest) => {
    if (mount[field] !== undefined && mount[field] !== "") {
      throw invalid(`field ${field} must not be specified`);
    }
  };
  if (!mount.Target) throw invalid("field Target must not be empty");
  const destination = checkTarget(mount.Target, invalid);
  const writable = !mount.ReadOnly;
  switch (type) {
    case "bind": {
      if (source === "") throw invalid("field Source must not be empty");
      extra("VolumeOptions");
      extra("TmpfsOptions");
      if (!source.startsWith("/")) {
        throw invalid(
          `invalid mount path: '${source}' mount path must be absolute`,
        );
      }
      const given = mount.BindOptions ?? {};
      if (given.ReadOnlyForceRecursive && given.ReadOnlyNonRecursive) {
        throw invalid(
          "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive",
        );
      }
      if (given.Propagation && !PROPAGATION.includes(given.Propagation)) {
        throw invalid(`invalid propagation mode: ${given.Propagation}`);
      }
      return {
        type,
        source: cleanPath(source),
        destination,
        mode: "",
        writable,
        propagation: checkPropagation(given.Propagation),
        createSource: given.CreateMountpoint ?? false,
        nonRecursive: given.NonRecursive ?? false,
        readonlyNonRecursive: given.ReadOnlyNonRecursive ?? false,
      };
    }
    case "volume": {
      extra("BindOptions");
      extra("TmpfsOptions");
      if (source === "" && mount.ReadOnly) {
        throw invalid(
          "must not set ReadOnly mode when using anonymous volumes",
        );
      }
      const given = mount.VolumeOptions ?? {};
      const subpath = given.Subpath ?? "";
      if (subpath.startsWith("/") || subpath.split("/").includes("..")) {
        throw invalid("subpath must be a relative path within the volume");
      }
      return {
        type,
        name: source === "" ? undefined : source,
        destination,
        mode: "",
        writable,
        populate: !given.NoCopy && subpath === "",
        subpath,
        driver: given.DriverConfig?.Name,
        labels: given.Labels,
        options: given.DriverConfig?.Options,
      };
    }
    case "tmpfs":
      extra("BindOptions");
      extra("VolumeOptions");
      extra("Source");
      return undefined;
    default:
      throw invalid("mount type unknown");
  }
}

function checkTarget(
  target: string,
  invalid: (why: string) => InvalidParameter,
): string {
  if (!target.startsWith("/")) {
    throw invalid(
      `invalid mount path: '${target}' mount path must be absolute`,
    );
  }
  const clean = cleanPath(target);
  if (clean === "/") {
    throw invalid("invalid specification: destination can't be '/'");
  }
  return clean;
}

/** A virtual machine's mounts do not reach the host, nor the host's, made later, the machine. */
function checkPropagation(mode: string | undefined): string {
  if (!mode) return "rprivate";
  if (mode === "private" || mode === "rprivate") return mode;
  throw new InvalidParameter(
    `a container in a virtual machine of its own cannot have the mount propagation "${mode}"`,
  );
}

/** Without doubled slashes, "." and "..", and a slash at the end, as Go's path.Clean. */
export function cleanPath(text: string): string {
  const clean = path.posix.normalize(text);
  return clean.length > 1 ? clean.replace(/\/$/, "") : clean;
}
