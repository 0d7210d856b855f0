/**
 * The writable disk of a zygote that is furnished: as the guest left it when it was stopped for good. Each copy of the
 * zygote gets a copy of it, of which some are made before they are needed.
 */
import { rm } from "node:fs/promises";

/** How many copies lie ready. */
const SPARES = 2;

export class FrozenDisk {
  readonly path: string;
  readonly #copy: () => Promise<string>;
  #spares: string[] = [];
  #dropped = false;

  /** @param copy makes one @returns its path */
  constructor(path: string, copy: () => Promise<string>) {
    this.path = path;
    this.#copy = copy;
  }

  /** @returns the path of a copy, which is the caller's */
  async take(): Promise<string> {
    return this.#spares.shift() ?? (await this.#copy());
  }

  /** Makes what is missing. Not to be called again before it is done. */
  async stock(): Promise<void> {
    while (!this.#dropped && this.#spares.length < SPARES) {
      this.#spares.push(await this.#copy());
    }
    if (this.#dropped) await this.drop();
  }

  /** Nobody will ask for copies any more. */
  async drop(): Promise<void> {
    this.#dropped = true;
    const left = this.#spares.splice(0);
    await Promise.all(left.map((path) => rm(path, { force: true })));
  }
}
