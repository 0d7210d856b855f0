/**
 * The disk a container writes to: a sparse file with an empty ext4, made by the host before any guest
 * saw it and never opened by the host again. `mke2fs` runs once for each size; containers get copies, of
 * which some are made before they are needed.
 */
import { execFile } from "node:child_process";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { SystemError } from "../errors.js";
import { faultPoint } from "../fault.js";

const run = promisify(execFile);

const MKE2FS = [
  ...["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-i", "32768"],
  // A journal, so that a killed machine's disk is whole again on the next mount.
  ...["-J", "size=16"],
  // No room kept for growing; fewer backup superblocks: less to write and to read.
  ...["-O", "^resize_inode,sparse_super2"],
  // The file is all zeros: neither we nor the guest's kernel need to write the inode tables.
  "-E",
  "assume_storage_prezeroed=1,nodiscard,packed_meta_blocks=1,lazy_journal_init=1",
];

/** How many copies of the size that was asked for last lie ready. */
const SPARES = 2;
/** Copies are made so long after the last one was taken, in ms: containers that start go first. */
const QUIET_MS = 500;

export class WritableDisks {
  readonly #directory: string;
  readonly #blanks = new Map<number, Promise<string>>();
  /** Paths of copies that are nobody's. */
  #spares: string[] = [];
  #spareBytes = 0;
  #cleared: Promise<void> | undefined;
  #made = 0;
  #restocking = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(dataRoot: string) {
    this.#directory = path.join(dataRoot, "blank");
  }

  /**
   * Makes a fresh writable disk of `bytes` at `target`, a path below the data root.
   * @throws {SystemError} with the failing program's own words, e.g. that the disk is full
   */
  async create(target: string, bytes: number): Promise<void> {
    const spare = bytes === this.#spareBytes ? this.#spares.pop() : undefined;
    if (spare === undefined) await this.copy(target, bytes);
    else await rename(spare, target);
    this.#restockLater(bytes);
  }

  /**
   * The same at a path of its own, from which it may be renamed to be a container's; whoever has it removes it
   * otherwise.
   * @throws {SystemError} as `create`
   */
  spare(bytes: number): Promise<string> {
    return this.#ahead((target) => this.copy(target, bytes));
  }

  /**
   * Likewise, a copy of one that was made so and has been in a machine, which does not write to it now.
   * @throws {SystemError} as `create`
   */
  spareOf(disk: string): Promise<string> {
    return this.#ahead((target) => copyDisk(disk, target));
  }

  /**
   * Likewise, on whatever file system.
   * @throws {SystemError} as `create`
   */
  async copy(target: string, bytes: number): Promise<void> {
    let blank = this.#blanks.get(bytes);
    if (!blank) {
      blank = this.#makeBlank(bytes);
      this.#blanks.set(bytes, blank);
      blank.catch(() => this.#blanks.delete(bytes));
    }
    await copyDisk(await blank, target);
  }

  /** At a path of its own, where nothing is left when it cannot be made. */
  async #ahead(make: (target: string) => Promise<void>): Promise<string> {
    const target = path.join(this.#directory, `spare-${this.#made++}.img`);
    try {
      await make(target);
    } catch (error) {
      await rm(target, { force: true });
      throw error;
    }
    return target;
  }

  #restockLater(bytes: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      // Whoever needs a disk hears why none can be made.
      void this.#restock(bytes).catch(() => undefined);
    }, QUIET_MS).unref();
  }

  async #restock(bytes: number): Promise<void> {
    if (this.#restocking) return;
    this.#restocking = true;
    try {
      if (bytes !== this.#spareBytes) {
        const others = this.#spares.splice(0);
        this.#spareBytes = bytes;
        await Promise.all(others.map((spare) => rm(spare, { force: true })));
      }
      while (this.#spares.length < SPARES) {
        this.#spares.push(await this.spare(bytes));
      }
    } finally {
      this.#restocking = false;
    }
  }

  async #makeBlank(bytes: number): Promise<string> {
    await mkdir(this.#directory, { recursive: true, mode: 0o710 });
    this.#cleared ??= this.#removeOld().catch((error: unknown) => {
      this.#cleared = undefined;
      throw error;
    });
    await this.#cleared;
    const blank = path.join(this.#directory, `ext4-${bytes}.img`);
    // Made anew by each daemon: cheaper than proving that an old one is whole.
    const temporary = `${blank}.tmp`;
    try {
      const file = await open(temporary, "w", 0o600);
      await file.truncate(bytes).finally(() => file.close());
      await program("mke2fs", [...MKE2FS, temporary]);
      faultPoint("create.blank-disk");
      await rename(temporary, blank);
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
    return blank;
  }

  /** What an earlier daemon left. */
  async #removeOld(): Promise<void> {
    for (const name of await readdir(this.#directory)) {
      await rm(path.join(this.#directory, name), { force: true });
    }
  }
}

/** Copies a disk that no machine writes to now. @throws {SystemError} as `create` */
export async function copyDisk(from: string, to: string): Promise<void> {
  await program("cp", ["--sparse=always", "--reflink=auto", from, to]);
}

async function program(name: string, args: string[]): Promise<void> {
  try {
    await run(name, args);
  } catch (error) {
    const { stderr, message } = error as Error & { stderr?: string };
    throw new SystemError(
      `making the container's writable disk failed: ${stderr?.trim() || message}`,
    );
  }
}
