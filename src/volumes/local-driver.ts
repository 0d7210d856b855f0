/** Options of the "local" driver (moby volume/local): where a volume's content really is. */
import { stat } from "node:fs/promises";
import { InvalidParameter, NotImplemented, SystemError } from "../errors.js";

const KNOWN = ["type", "o", "device", "size"];

/**
 * @param name the volume's name, for the message
 * @throws {InvalidParameter} an unknown or missing option, in Docker's words
 * @throws {NotImplemented} a file system that hull does not mount, by name
 */
export function checkOptions(
  name: string,
  options: Record<string, string>,
): void {
  const given = Object.keys(options);
  const refuse = (why: string) =>
    new InvalidParameter(`create ${name}: ${why}`);
  for (const option of given) {
    if (!KNOWN.includes(option)) {
      throw refuse(`invalid option: ${JSON.stringify(option)}`);
    }
  }
  if (given.length === 0) return;
  if (options["size"] !== undefined) {
    throw refuse("quota size requested but no quota support");
  }
  for (const option of ["device", "type"]) {
    if (options[option] === undefined) {
      throw refuse(`missing required option: ${JSON.stringify(option)}`);
    }
  }
  if (isBind(options)) {
    if (!options["device"]?.startsWith("/")) {
      throw refuse("the device of a bind must be an absolute path");
    }
    const odd = mountOptions(options).find(
      (option) => !["bind", "rbind", "ro", "rw"].includes(option),
    );
    if (odd !== undefined) {
      throw new NotImplemented(
        `create ${name}: hull does not support the mount option ${JSON.stringify(odd)} of a bind`,
      );
    }
    return;
  }
  throw new NotImplemented(
    `create ${name}: hull does not support volumes of type ${JSON.stringify(options["type"])}: only type=none with o=bind`,
  );
}

/** A folder of the host that a volume is a bind of. */
interface BoundFolder {
  path: string;
  readonly: boolean;
  recursive: boolean;
}

/** The folder that a volume is a bind of; undefined for one with a folder of its own. */
export function boundFolder(
  options: Record<string, string> | null,
): BoundFolder | undefined {
  if (options === null || !isBind(options)) return undefined;
  const given = mountOptions(options);
  return {
    path: options["device"] ?? "",
    readonly: given.includes("ro"),
    recursive: given.includes("rbind"),
  };
}

/** Flags of mount(2), which are in Docker's message. */
const MS_RDONLY = 0x1;
const MS_BIND = 0x1000;
const MS_REC = 0x4000;

/**
 * @param mountpoint where Docker would mount it, for the message
 * @throws {SystemError} it is not there, or is no folder: in Docker's words
 */
export async function checkFolder(
  { path, readonly, recursive }: BoundFolder,
  mountpoint: string,
): Promise<void> {
  const why = await stat(path).then(
    (found) => (found.isDirectory() ? undefined : "not a directory"),
    ({ code, message }: NodeJS.ErrnoException) => WORDS[code ?? ""] ?? message,
  );
  if (why === undefined) return;
  const flags = MS_BIND | (readonly ? MS_RDONLY : 0) | (recursive ? MS_REC : 0);
  throw new SystemError(
    `error while mounting volume '${mountpoint}': failed to mount local volume: mount ${path}:${mountpoint}, flags: 0x${flags.toString(16)}: ${why}`,
  );
}

/** The kernel's words, as Go writes them. */
const WORDS: Partial<Record<string, string>> = {
  ENOENT: "no such file or directory",
  ENOTDIR: "not a directory",
  ELOOP: "too many levels of symbolic links",
  EACCES: "permission denied",
};

function isBind(options: Record<string, string>): boolean {
  const given = mountOptions(options);
  return given.includes("bind") || given.includes("rbind");
}

function mountOptions(options: Record<string, string>): string[] {
  return (options["o"] ?? "").split(",").filter((option) => option !== "");
}
