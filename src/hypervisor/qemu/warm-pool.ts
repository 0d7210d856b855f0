/**
 * Machines that are up and stand still until a container needs one. The pool fills itself in the
 * background, one machine at a time and not while containers start, and gives way when memory runs short. So it
 * does with what machines are forked from, even if it has none itself.
 *
 * One of several is furnished for another container of the image that was used last; the others are for any.
 */
import type { Logger } from "pino";
import type { Disks, Furnishing, MachineExit } from "../index.js";
import type { NicBackend } from "./command-line.js";
import { isGone, isSame } from "./furnishing.js";

/** After a start the pool waits for others that may follow, before it makes machines again; in ms. */
const QUIET_MS = 250;
/** Starts that follow each other for ever hold it off for this many ms. */
const LONGEST_QUIET_MS = 2000;
/** After a machine could not be made, the next try waits so long, in ms. */
const RETRY_MS = 10_000;
/** How often the host's memory is looked at while the pool holds any, in ms. */
const LOOK_MS = 5000;
/** Share of the host's memory that is to be available: below the first the pool is given up. */
const SCARCE = 0.1;
/** Above this it is filled (again). */
const ENOUGH = 0.2;

/** What the pool needs of a machine. */
export interface Poolable {
  readonly exited: Promise<MachineExit>;
  kill(): Promise<void>;
}

export interface Pooled<M extends Poolable> {
  machine: M;
  nics: NicBackend[];
  /** What it is a machine of: another one than is asked for is of no use. */
  key: string;
  /** It is for a container that wishes for this. */
  furnishing?: Furnishing;
}

/** What machines are forked from: the pool's, and those that are needed when it is empty. */
export interface Origins {
  /** How many there are. */
  count: () => number;
  /**
   * Makes what is missing, where there can be any; also for what is furnished as is wished. Not called again before
   * it is done.
   */
  prepare: (wish?: Furnishing) => Promise<void>;
  /** Ends what is furnished with an image that was removed. */
  letImagesGo: () => Promise<void>;
  /** Ends all of them. */
  close: () => Promise<void>;
}

export interface WarmPoolOptions<M extends Poolable> {
  /** How many machines stand ready. */
  size: number;
  /** @returns undefined when none can be made now, and `fill` will be called when it can */
  make: (furnishing?: Furnishing) => Promise<Pooled<M> | undefined>;
  /** Called with what has ended in the pool, or was never taken. */
  discarded: (pooled: Pooled<M>) => void;
  /** Default: none. */
  origins?: Origins;
  /** Available memory of the host, as a share of all of it. */
  availableMemory: () => number;
  log: Logger;
  /** Default: as documented above; shorter in tests. */
  quietMs?: number;
}

export class WarmPool<M extends Poolable> {
  readonly #options: WarmPoolOptions<M>;
  readonly #quietMs: number;
  #ready: Pooled<M>[] = [];
  #filling: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #wantedSince: number | undefined;
  /** Whether what machines are forked from is to be looked after. */
  #unprepared = false;
  #look: NodeJS.Timeout | undefined;
  #closed = false;
  /** What was wished for last. */
  #wish: Furnishing | undefined;

  constructor(options: WarmPoolOptions<M>) {
    this.#options = options;
    this.#quietMs = options.quietMs ?? QUIET_MS;
  }

  /** How many machines stand ready. */
  get length(): number {
    return this.#ready.length;
  }

  /** The machine that is furnished as is wished, or else the one for any container that has waited longest. */
  choose(key: string, wish?: Disks): Pooled<M> | undefined {
    const fitting = this.#ready.filter((one) => one.key === key);
    return (
      (wish && furnishedBy(wish, fitting)) ??
      fitting.find(({ furnishing }) => !furnishing)
    );
  }

  /** What `choose` says; the caller's from now on. Another takes its place later. */
  take(key: string, wish?: Furnishing): Pooled<M> | undefined {
    this.#dropOthers(({ key: own }) => own !== key);
    this.#wish = wish ?? this.#wish;
    const taken = this.choose(key, wish);
    if (taken) this.#ready.splice(this.#ready.indexOf(taken), 1);
    this.fillWhenQuiet();
    return taken;
  }

  /** Makes what is missing, in the background. Resolves when it was tried; never rejects. */
  fill(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#wantedSince = undefined;
    this.#unprepared = this.#options.origins !== undefined;
    this.#filling ??= this.#fill().finally(() => (this.#filling = undefined));
    return this.#filling;
  }

  /** Ends all of them, and what they are forked from. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearInterval(this.#look);
    await this.#filling;
    await this.#drain();
  }

  async #fill(): Promise<void> {
    const { size, origins, log } = this.#options;
    try {
      this.#dropOthers(
        ({ furnishing }) =>
          furnishing && !(this.#wish && isSame(furnishing, this.#wish)),
      );
      while (!this.#closed && (this.#unprepared || this.#ready.length < size)) {
        // A start goes first: `take` has set the timer anew.
        if (this.#timer !== undefined) return;
        if (this.#options.availableMemory() < ENOUGH) {
          this.#fillAfter(LOOK_MS);
          return;
        }
        if (this.#unprepared) {
          this.#unprepared = false;
          await origins?.prepare(this.#wish);
          if (origins?.count()) this.#watchMemory();
          continue;
        }
        const made = await this.#make();
        if (!made) return;
        this.#add(made);
      }
      if (size > 0) log.debug({ machines: size }, "the warm pool is full");
    } catch (error) {
      if (this.#closed) return;
      log.warn(
        { reason: (error as Error).message },
        "the warm pool could not be filled: machines are restored when they are needed",
      );
      this.#fillAfter(RETRY_MS);
    }
  }

  /** Of one machine all depends on its serving any container. */
  async #make(): Promise<Pooled<M> | undefined> {
    const { size, make, log } = this.#options;
    const wish = this.#wish;
    if (size > 1 && wish && !furnishedBy(wish, this.#ready)) {
      try {
        if (!(await isGone(wish))) return await make(wish);
      } catch (error) {
        const reason = (error as Error).message;
        log.debug({ reason }, "a machine of the warm pool was not furnished");
      }
      if (this.#wish === wish) this.#wish = undefined;
    }
    return make();
  }

  #add(pooled: Pooled<M>): void {
    const { discarded, log } = this.#options;
    this.#ready.push(pooled);
    this.#watchMemory();
    void pooled.machine.exited.then(({ reason }) => {
      const at = this.#ready.indexOf(pooled);
      if (at < 0) return;
      this.#ready.splice(at, 1);
      discarded(pooled);
      log.warn({ reason }, "a machine of the warm pool ended: another is made");
      this.fillWhenQuiet();
    });
  }

  /** When no start has followed for a while; not put off for ever. */
  fillWhenQuiet(): void {
    const now = performance.now();
    this.#wantedSince ??= now;
    const left = this.#wantedSince + LONGEST_QUIET_MS - now;
    this.#fillAfter(Math.max(0, Math.min(this.#quietMs, left)));
  }

  #fillAfter(ms: number): void {
    const { size, origins } = this.#options;
    if (this.#closed || (size === 0 && !origins)) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.fill(), ms).unref();
  }

  #dropOthers(isOther: (pooled: Pooled<M>) => unknown): void {
    const others = this.#ready.filter(isOther);
    this.#ready = this.#ready.filter((one) => !others.includes(one));
    for (const other of others) void this.#end(other);
  }

  #watchMemory(): void {
    this.#look ??= setInterval(() => {
      void this.#giveWay().catch(() => undefined);
      void this.#letImagesGo().catch(() => undefined);
    }, LOOK_MS).unref();
  }

  /** The room of an image that was removed is to be free. */
  async #letImagesGo(): Promise<void> {
    await this.#options.origins?.letImagesGo();
    for (const { furnishing } of [...this.#ready]) {
      if (!furnishing || !(await isGone(furnishing))) continue;
      if (this.#wish && isSame(this.#wish, furnishing)) this.#wish = undefined;
      this.#dropOthers((one) => one.furnishing === furnishing);
      this.fillWhenQuiet();
    }
  }

  async #giveWay(): Promise<void> {
    const share = this.#options.availableMemory();
    const machines = this.#ready.length;
    const zygotes = this.#options.origins?.count() ?? 0;
    if (share >= SCARCE || machines + zygotes === 0) return;
    this.#options.log.warn(
      { machines, zygotes },
      "the host is short of memory: the warm pool is given up for now",
    );
    await this.#drain();
    this.#fillAfter(LOOK_MS);
  }

  async #drain(): Promise<void> {
    await Promise.all(this.#ready.splice(0).map((one) => this.#end(one)));
    await this.#options.origins?.close();
  }

  async #end(pooled: Pooled<M>): Promise<void> {
    await pooled.machine.kill();
    this.#options.discarded(pooled);
  }
}

function furnishedBy<M extends Poolable>(
  wish: Disks,
  pooled: readonly Pooled<M>[],
): Pooled<M> | undefined {
  return pooled.find(
    ({ furnishing }) => furnishing && isSame(furnishing, wish),
  );
}
