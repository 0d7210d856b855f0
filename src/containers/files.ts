/** The files of a container, running or not: `docker cp`, `export`, `diff`, and the layer of `commit`. */
import { rm } from "node:fs/promises";
import path from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { FileTask, PathStat } from "../../protocol/index.js";
import {
  Conflict,
  Forbidden,
  InvalidParameter,
  NotFound,
  SystemError,
} from "../errors.js";
import { AgentFailure, type Hypervisor } from "../hypervisor/index.js";
import type { ImageSource } from "../images/index.js";
import type { Volumes } from "../volumes/index.js";
import type { Container } from "./container.js";
import type { Tell } from "./container-events.js";
import type { MachineFiles, RunningTask } from "./machine-files.js";
import {
  type MachineDefaults,
  machineCpus,
  machineMemory,
  setupOf,
} from "./machine-spec.js";
import { depth, type MountPoint } from "./mounts/mount-point.js";
import { cleanPath } from "./mounts/specification.js";
import { prepareMounts } from "./mounts/start.js";
import { OfflineMachine } from "./offline-machine.js";

export interface ContainerFilesOptions {
  images: ImageSource;
  hypervisor: Hypervisor;
  volumes: Volumes;
  defaults: MachineDefaults;
  /** Folder for the machines' sockets. */
  machineRoot: string;
  tell: Tell;
}

/** A changed path; the kinds are the Engine API's numbers. */
export interface Change {
  Path: string;
  /** 0 modified, 1 added, 2 deleted. */
  Kind: 0 | 1 | 2;
}

export interface ExtractOptions {
  /** Whose the files become: a user of the container as in its config; "" keeps the archive's. */
  owner: string;
  /** A folder takes no file's place, and a file no folder's. */
  keepKinds: boolean;
}

/** Longest list of changes, in bytes. */
const MAX_CHANGES = 256 * 1024 * 1024;

interface Lease {
  files: MachineFiles;
  release: () => void;
}

export class ContainerFiles {
  readonly #options: ContainerFilesOptions;
  /** How many work on the files of a paused container, whose machine goes on meanwhile. */
  readonly #pausedUsers = new Map<Container, number>();

  constructor(options: ContainerFilesOptions) {
    this.#options = options;
  }

  /**
   * @throws {NotFound} nothing is there
   */
  async stat(container: Container, at: string): Promise<PathStat> {
    const { task, end } = await this.#begin(container, {
      do: "stat",
      path: at,
    }).catch(pathError(container, at));
    task.output.resume();
    await task.done.finally(end);
    return statOf(task);
  }

  /**
   * A path and what is below it as a tar archive.
   * @throws {NotFound} nothing is there
   */
  async archive(
    container: Container,
    at: string,
  ): Promise<{ stat: PathStat; archive: Readable }> {
    const { task, end } = await this.#begin(container, {
      do: "archive",
      path: at,
    }).catch(pathError(container, at));
    void task.done.catch(() => undefined).finally(end);
    this.#options.tell(container, "archive-path");
    return { stat: statOf(task), archive: task.output };
  }

  /**
   * Extracts an uncompressed tar archive into a folder.
   * @throws {NotFound} no such folder
   * @throws {InvalidParameter} it is none, or the archive is damaged or leads out of it
   * @throws {Forbidden} the folder is read-only
   */
  async extract(
    container: Container,
    at: string,
    archive: Readable,
    options: ExtractOptions,
  ): Promise<void> {
    if (mountAt(container.record.mounts ?? [], at)?.writable === false) {
      throw new Forbidden("mounted volume is marked read-only");
    }
    const { task, end } = await this.#begin(container, {
      do: "extract",
      path: at,
      ...options,
    }).catch(pathError(container, at));
    try {
      task.output.resume();
      // The task's end has the reason when it stops reading.
      const fed = pipeline(archive, task.input);
      fed.catch(() => undefined);
      const cut = fed.then(
        () => new Promise<never>(() => undefined),
        (error: Error) => {
          task.output.destroy();
          throw error;
        },
      );
      await Promise.race([task.done, cut]);
    } finally {
      await task.done.catch(() => undefined);
      end();
    }
    this.#options.tell(container, "extract-to-dir");
  }

  /** The whole root file system, without mounts, as a tar archive. */
  async export(container: Container): Promise<Readable> {
    const { task, end } = await this.#begin(container, { do: "export" });
    void task.done.catch(() => undefined).finally(end);
    this.#options.tell(container, "export");
    return task.output;
  }

  /** What the container has changed in its image. */
  async changes(container: Container): Promise<Change[]> {
    const { task, end } = await this.#begin(container, { do: "changes" });
    try {
      const chunks: Buffer[] = [];
      let size = 0;
      for await (const chunk of task.output as AsyncIterable<Buffer>) {
        size += chunk.length;
        if (size > MAX_CHANGES) throw new SystemError("too many changes");
        chunks.push(chunk);
      }
      await task.done;
      return parseChanges(Buffer.concat(chunks).toString("utf8"));
    } finally {
      end();
    }
  }

  /**
   * What the container has changed, as an image layer's archive. Guest-written: not to be trusted.
   * @param still whether its processes stand still meanwhile
   */
  async layer(container: Container, still: boolean): Promise<Readable> {
    const { machine } = container;
    const thaw =
      still && container.record.state.status === "running" && machine
        ? await machine.agent
            .request("freeze", { frozen: true })
            .then(() => () => {
              if (container.record.state.status !== "running") return;
              machine.agent
                .request("freeze", { frozen: false })
                .catch(() => undefined);
            })
        : () => undefined;
    try {
      const { task, end } = await this.#begin(container, { do: "layer" });
      void task.done.catch(() => undefined).finally(() => (thaw(), end()));
      return task.output;
    } catch (error) {
      thaw();
      throw error;
    }
  }

  async #begin(
    container: Container,
    task: FileTask,
  ): Promise<{ task: RunningTask; end: () => void }> {
    const { files, release } = await this.#lease(container);
    try {
      return { task: await files.begin(task), end: release };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** A machine that has the container's disks: its own, or one for the purpose. */
  #lease(container: Container): Promise<Lease> {
    return container.exclusive(async () => {
      const { status } = container.record.state;
      if (status === "removing" || status === "dead") {
        throw new Conflict(
          `container ${container.id} is marked for removal: its files cannot be reached`,
        );
      }
      if (status === "paused") return this.#leasePaused(container);
      if (container.isRunning && container.files) {
        return { files: container.files, release: () => undefined };
      }
      await container.teardown;
      const offline = (container.offline ??= await this.#boot(container));
      return { files: offline.files, release: offline.use() };
    });
  }

  /** The processes of a paused container are frozen in its machine, which itself may go on. */
  async #leasePaused(container: Container): Promise<Lease> {
    const { machine, files } = container;
    if (!machine || !files) throw new Conflict("container is not running");
    this.#pausedUsers.set(
      container,
      (this.#pausedUsers.get(container) ?? 0) + 1,
    );
    await machine.resume();
    return {
      files,
      release: () => {
        const left = (this.#pausedUsers.get(container) ?? 1) - 1;
        if (left > 0) {
          this.#pausedUsers.set(container, left);
          return;
        }
        this.#pausedUsers.delete(container);
        void container.exclusive(async () => {
          if (this.#pausedUsers.has(container)) return;
          if (container.record.state.status === "paused") await machine.pause();
        });
      },
    };
  }

  async #boot(container: Container): Promise<OfflineMachine> {
    const { record } = container;
    const { hypervisor, images, volumes, defaults, machineRoot } =
      this.#options;
    const directory = path.join(machineRoot, `${record.id.slice(0, 15)}f`);
    const forget = () => rm(directory, { recursive: true, force: true });
    const mounts = await prepareMounts(record, volumes);
    mounts.release();
    // Volumes get their first content when the container starts.
    const setup = setupOf(
      record,
      mounts.shares.map((share) => ({ ...share, populate: false })),
    );
    container.takeBlankDisk();
    const offline = await OfflineMachine.boot(
      hypervisor,
      {
        memoryBytes: machineMemory({}, defaults),
        vcpus: machineCpus({}, defaults),
      },
      {
        id: record.id,
        directory,
        disks: [
          await images.disk(record.imageId),
          {
            parts: [{ path: container.writableDisk, bytes: record.diskBytes }],
            readonly: false,
          },
        ],
        forwards: [],
      },
      {
        ...setup,
        network: { interfaces: [] },
        // A tmpfs is there only while the container runs.
        mounts: (setup.mounts ?? []).filter((mount) => mount.type !== "tmpfs"),
      },
      (machine) => mounts.serve(machine.shareSocket, directory),
      () =>
        void container.exclusive(async () => {
          if (container.offline === offline && !offline.inUse)
            await container.endOffline(true);
        }),
    );
    void offline.exited.then(async () => {
      if (container.offline === offline) container.offline = undefined;
      await forget();
    });
    return offline;
  }
}

/** The bind or volume that a path is in, as far as its name tells: links are the guest's to follow. */
function mountAt(
  mounts: readonly MountPoint[],
  at: string,
): MountPoint | undefined {
  const path = `${cleanPath(`/${at}`)}/`.replace("//", "/");
  return mounts
    .filter(({ destination }) => path.startsWith(`${destination}/`))
    .sort((a, b) => depth(b.destination) - depth(a.destination))[0];
}

function statOf({ stat }: RunningTask): PathStat {
  if (!stat) throw new SystemError("the agent did not say what is there");
  return stat;
}

/** A refusal of the agent in Docker's words. */
function pathError(container: Container, at: string) {
  return (error: unknown): never => {
    if (!(error instanceof AgentFailure)) throw error;
    if (error.errno === "ENOENT") {
      throw new NotFound(
        `Could not find the file ${at} in container ${container.record.name}`,
      );
    }
    if (error.errno === "EROFS") throw new Forbidden(error.message);
    if (error.code === "invalid" || error.code === "no-such-user") {
      throw new InvalidParameter(error.message);
    }
    throw new SystemError(error.message);
  };
}

/** @throws {SystemError} the agent wrote something else */
export function parseChanges(text: string): Change[] {
  const entries = text.split("\0");
  // Each path has a zero byte behind it.
  if (entries.pop() !== "") throw new SystemError("malformed list of changes");
  return entries.map((entry) => {
    const kind = Number(entry[0]);
    if ((kind !== 0 && kind !== 1 && kind !== 2) || entry[1] !== "/") {
      throw new SystemError("malformed list of changes");
    }
    return { Path: entry.slice(1), Kind: kind };
  });
}
