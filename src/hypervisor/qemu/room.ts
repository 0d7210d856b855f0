/**
 * The folder that is a machine process's root: QEMU, what it loads, and what the guest boots from. Copies,
 * made once, read-only when in use; nothing else of the host is in it.
 */
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { constants } from "node:fs";
import {
  chmod,
  copyFile,
  mkdir,
  readdir,
  rename,
  rm,
  stat,
  utimes,
} from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { Unavailable } from "../../errors.js";
import { fileIdentity } from "./host-identity.js";

/** What a microvm may load at its start, in the folders of QEMU's firmware. */
const FIRMWARE = ["qboot.rom", "bios-microvm.bin", "pvh.bin", "kvmvapic.bin"];
/** Accelerators are modules in some builds of QEMU, beside its libraries. */
const MODULES = /^accel-.*x86_64\.so$/;

/** Rooms beyond so many go, those first that were not used for the longest time. */
const MOST_ROOMS = 6;

/** A room that is ready; all paths but `directory` are inside of it. */
export interface Room {
  directory: string;
  binary: string;
  kernel: string;
  initramfs: string;
}

export interface RoomOptions {
  /** Rooms are folders below it. */
  root: string;
  /** The path of qemu-system-x86_64. */
  binary: string;
  kernel: string;
  initramfs: string;
  /** build/hull-descriptors.so, see jail/descriptors.c. */
  preload: string;
}

const KERNEL = "/guest/vmlinux";
const INITRAMFS = "/guest/initramfs.cpio";

/**
 * Makes the room, unless there is one of the very same files, and removes old ones: machines that run keep
 * what they have open.
 * @throws {Unavailable} it cannot be found out what QEMU needs, or the room cannot be made
 */
export async function openRoom(options: RoomOptions): Promise<Room> {
  const { root, kernel, initramfs, preload } = options;
  const binary = resolve(options.binary);
  const files = new Map<string, string>([
    [binary, binary],
    [KERNEL, kernel],
    [INITRAMFS, initramfs],
    ["/hull-descriptors.so", preload],
  ]);
  const modules = await modulesOf(binary);
  const libraries = await Promise.all([binary, ...modules].map(librariesOf));
  const firmware = await firmwareOf(binary);
  for (const file of [...modules, ...libraries.flat(), ...firmware]) {
    files.set(file, file);
  }
  const name = nameOf(files);
  const directory = join(root, name);
  try {
    if (fileIdentity(directory) === "") {
      await furnish(directory, files);
    }
    const now = new Date();
    await utimes(directory, now, now);
    await tidy(root);
  } catch (error) {
    throw new Unavailable(
      `the root of machine processes cannot be made: ${(error as Error).message}`,
    );
  }
  return { directory, binary, kernel: KERNEL, initramfs: INITRAMFS };
}

/** Machines may be starting in a room that was the last one's until now. */
async function tidy(root: string): Promise<void> {
  const rooms = await Promise.all(
    (await readdir(root)).map(async (name) => {
      const directory = join(root, name);
      const used = await stat(directory).then(
        ({ mtimeMs }) => mtimeMs,
        () => 0,
      );
      return { directory, used };
    }),
  );
  rooms.sort((a, b) => b.used - a.used);
  for (const { directory } of rooms.slice(MOST_ROOMS)) {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Changes with the place or the content of any file. */
function nameOf(files: Map<string, string>): string {
  const identities = [...files].map(([to, from]) => [to, fileIdentity(from)]);
  return createHash("sha256")
    .update(JSON.stringify(identities.sort()))
    .digest("hex")
    .slice(0, 16);
}

async function furnish(
  directory: string,
  files: Map<string, string>,
): Promise<void> {
  const draft = `${directory}.${randomBytes(4).toString("hex")}`;
  await mkdir(draft, { recursive: true });
  for (const [to, from] of files) {
    const path = join(draft, to);
    await mkdir(dirname(path), { recursive: true });
    await copyFile(from, path, constants.COPYFILE_FICLONE);
    const { mode } = await stat(from);
    await chmod(path, mode & 0o111 ? 0o555 : 0o444);
  }
  await openToAll(draft);
  try {
    await rename(draft, directory);
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    // Who asked at the same time was faster.
    if ((error as NodeJS.ErrnoException).code !== "ENOTEMPTY") throw error;
  }
}

/** Folders have been made under the daemon's umask. */
async function openToAll(directory: string): Promise<void> {
  await chmod(directory, 0o755);
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) await openToAll(join(directory, entry.name));
  }
}

/**
 * The libraries and the loader of a program or library, as the loader finds them.
 * @throws {Unavailable} it is none, e.g. a script
 */
async function librariesOf(file: string): Promise<string[]> {
  let text: string;
  try {
    ({ stdout: text } = await promisify(execFile)("ldd", [file], {
      env: { ...process.env, LC_ALL: "C" },
      timeout: 20_000,
    }));
  } catch (error) {
    throw new Unavailable(
      `the libraries of ${file} cannot be found out: ${(error as Error).message.trim()}`,
    );
  }
  return parseLdd(text);
}

/** Paths in what ldd(1) says: "name => /path (0x…)", "/path (0x…)". */
export function parseLdd(text: string): string[] {
  return text
    .split("\n")
    .map((line) => /^\s+(?:\S+ => )?(\/\S+) \(0x[0-9a-f]+\)$/.exec(line)?.[1])
    .filter((path) => path !== undefined);
}

/** Where QEMU's build looks for modules: beside its library folder. */
async function modulesOf(binary: string): Promise<string[]> {
  const folders = [
    "../lib/x86_64-linux-gnu/qemu",
    "../lib/qemu",
    "../lib64/qemu",
  ].map((folder) => resolve(dirname(binary), folder));
  const found = await Promise.all(
    folders.map(async (folder) =>
      (await readdir(folder).catch(() => []))
        .filter((name) => MODULES.test(name))
        .map((name) => join(folder, name)),
    ),
  );
  return found.flat();
}

async function firmwareOf(binary: string): Promise<string[]> {
  const { stdout } = await promisify(execFile)(binary, ["-L", "help"], {
    timeout: 10_000,
  });
  const candidates = stdout
    .split("\n")
    .filter((line) => line.startsWith("/"))
    .flatMap((folder) => FIRMWARE.map((name) => resolve(folder, name)));
  return candidates.filter((file) => fileIdentity(file) !== "");
}
