/** Where a run of the bench keeps its things, and how it leaves nothing behind. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";

export class Scratch {
  readonly #undo: { what: string; action: () => Promise<unknown> }[] = [];

  private constructor(readonly directory: string) {}

  /**
   * The folder is in /var/tmp unless $HULL_BENCH_DIR says otherwise: overlay mounts of the peers and
   * sparse disks want a real file system. Its path is short, as sockets need it.
   */
  static async make(): Promise<Scratch> {
    const parent = process.env["HULL_BENCH_DIR"] ?? "/var/tmp";
    const scratch = new Scratch(await mkdtemp(join(parent, "hull-bench-")));
    scratch.atEnd(`rm -r ${scratch.directory}`, () =>
      rm(scratch.directory, { recursive: true, force: true }),
    );
    return scratch;
  }

  /** A new folder. */
  async folder(name: string): Promise<string> {
    const path = join(this.directory, name);
    await mkdir(path, { recursive: true });
    return path;
  }

  /** What is to be done at the end, the last one first. */
  atEnd(what: string, action: () => Promise<unknown>): void {
    this.#undo.push({ what, action });
  }

  /** Does all of it; what fails is told and does not keep the rest from being done. */
  async clean(): Promise<void> {
    for (const { what, action } of this.#undo.splice(0).reverse()) {
      try {
        await action();
      } catch (error) {
        console.error(`bench: cleaning up, ${what}: ${String(error)}`);
      }
    }
  }
}
