/**
 * A control group for each machine's process: limits of memory and of the number of threads that hold
 * whatever QEMU does. Both versions of control groups are known; on hosts with both mounted (hybrid), a
 * controller is where the kernel says it is.
 */
import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Unavailable } from "../../errors.js";

/** How often a group is tried to be removed whose process has just ended. */
const REMOVE_TRIES = 8;
/** The same at the daemon's end, where it may be that machines stay. */
const CLOSE_TRIES = 5;

const CONTROLLERS = ["memory", "pids"] as const;
type Controller = (typeof CONTROLLERS)[number];

export interface GroupLimits {
  memoryBytes: number;
  /** Processes and threads. */
  tasks: number;
}

/** Mounted hierarchies that have what is needed here. */
export interface Hierarchy {
  version: 1 | 2;
  mount: string;
  controllers: Controller[];
}

/** Reads /proc/mounts. `available`: the controllers of a version 2 hierarchy, by its mount point. */
export async function hierarchies(
  mounts: string,
  available: (mount: string) => Promise<string[]>,
): Promise<Hierarchy[]> {
  const found: Hierarchy[] = [];
  const missing = () =>
    CONTROLLERS.filter(
      (one) => !found.some(({ controllers }) => controllers.includes(one)),
    );
  for (const line of mounts.split("\n")) {
    const [, mount = "", type, options = ""] = line.split(" ");
    if (type !== "cgroup" && type !== "cgroup2") continue;
    const offered =
      type === "cgroup" ? options.split(",") : await available(mount);
    const controllers = missing().filter((one) => offered.includes(one));
    if (controllers.length === 0) continue;
    found.push({ version: type === "cgroup" ? 1 : 2, mount, controllers });
  }
  return found;
}

/** The groups of one daemon's machines. */
export class MachineGroups {
  readonly #hierarchies: Hierarchy[];
  /** Below each hierarchy's mount. */
  readonly #path: string;

  private constructor(found: Hierarchy[], path: string) {
    this.#hierarchies = found;
    this.#path = path;
  }

  /**
   * Makes the group that those of machines are below, and removes groups in it whose machines are gone.
   * @param path of the group, below each hierarchy's root
   * @throws {Unavailable} there are no control groups to be had here, with why
   */
  static async open(path: string): Promise<MachineGroups> {
    const found = await hierarchies(
      await readFile("/proc/mounts", "utf8"),
      async (mount) =>
        (await readFile(join(mount, "cgroup.controllers"), "utf8"))
          .trim()
          .split(" "),
    );
    const missing = CONTROLLERS.filter(
      (one) => !found.some(({ controllers }) => controllers.includes(one)),
    );
    if (missing.length > 0) {
      throw new Unavailable(`no control group of ${missing.join(" and ")}`);
    }
    const groups = new MachineGroups(found, path);
    try {
      await groups.#makeParents();
    } catch (error) {
      throw new Unavailable((error as Error).message);
    }
    for (const { mount } of found) {
      for (const name of await readdir(join(mount, path))) {
        // Files cannot be removed, and groups of machines that run neither.
        await rmdir(join(mount, path, name)).catch(() => undefined);
      }
    }
    return groups;
  }

  /** @throws the system's error */
  async create(name: string, limits: GroupLimits): Promise<void> {
    await Promise.all(
      this.#hierarchies.map(async ({ version, mount, controllers }) => {
        const folder = join(mount, this.#path, name);
        await mkdir(folder);
        const set = (file: string, value: number) =>
          writeFile(join(folder, file), String(value));
        if (controllers.includes("memory")) {
          const file = version === 1 ? "memory.limit_in_bytes" : "memory.max";
          await set(file, limits.memoryBytes);
        }
        if (controllers.includes("pids")) await set("pids.max", limits.tasks);
      }),
    );
  }

  /** Puts a process in; does nothing when it has ended. @throws the system's error */
  async join(name: string, pid: number): Promise<void> {
    for (const { mount } of this.#hierarchies) {
      await writeFile(
        join(mount, this.#path, name, "cgroup.procs"),
        String(pid),
      ).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "ESRCH") throw error;
      });
    }
  }

  /** To be called when its process has ended. A group that does not go is left to the next daemon. */
  async remove(name: string): Promise<void> {
    await this.#removeAll(join(this.#path, name), REMOVE_TRIES);
  }

  /** The group that those of machines are below goes, too, unless machines stay. */
  async close(): Promise<void> {
    await this.#removeAll(this.#path, CLOSE_TRIES);
  }

  async #removeAll(path: string, most: number): Promise<void> {
    for (const { mount } of this.#hierarchies) {
      for (let tries = 0; tries < most; tries++) {
        const busy = await rmdir(join(mount, path)).then(
          () => false,
          (error: NodeJS.ErrnoException) => error.code === "EBUSY",
        );
        if (!busy) break;
        // A process is counted for a moment after its parent has collected it.
        await sleep(2 ** tries, undefined, { ref: false });
      }
    }
  }

  async #makeParents(): Promise<void> {
    for (const { version, mount, controllers } of this.#hierarchies) {
      let folder = mount;
      for (const part of this.#path.split("/")) {
        if (version === 2) await delegate(folder, controllers);
        folder = join(folder, part);
        await mkdir(folder, { recursive: true });
      }
      if (version === 2) await delegate(folder, controllers);
    }
  }
}

/** Gives a group's controllers to the groups in it. */
async function delegate(
  folder: string,
  controllers: Controller[],
): Promise<void> {
  await writeFile(
    join(folder, "cgroup.subtree_control"),
    controllers.map((one) => `+${one}`).join(" "),
  );
}
