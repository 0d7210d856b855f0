/**
 * What stands ready for the machines that are expected: the template of their shape, the warm pool, and the zygotes
 * that they are forked from.
 */
import type { Disks, Furnishing, MachineSize, Rehearsal } from "../index.js";
import { bringUp, type BringUpOptions, restore } from "./bring-up.js";
import type { NicBackend } from "./command-line.js";
import { furnish, load } from "./furnish.js";
import type { QemuMachine } from "./machine.js";
import { availableShare } from "./memory.js";
import type { Nics } from "./nics.js";
import { rehearse } from "./rehearse.js";
import { type MachineShape, shapeName, shapeOf } from "./shape.js";
import type { TemplatePlatform } from "./templates.js";
import { type Pooled, WarmPool } from "./warm-pool.js";
import { Zygotes } from "./zygote.js";

/** How long after a boot the template is made that would have spared it, in ms. */
const MAKE_LATER_MS = 1000;

/** How many machines stand ready, what they do before, and whether there is a zygote, where there can be. */
export interface Warm {
  machines: number;
  zygote: boolean;
  rehearsal: Rehearsal;
}

export interface StandbyOptions {
  /** Absent: no machine stands ready. */
  warm: Warm | undefined;
  /** What a machine of this size is to be. */
  kind: (
    size: MachineSize,
  ) => Promise<{ on: TemplatePlatform; shape: MachineShape }>;
  nics: Nics;
  bringUp: BringUpOptions;
}

export class Standby {
  readonly #options: StandbyOptions;
  readonly #pool: WarmPool<QemuMachine>;
  /** What the pool's machines are forked from, where that can be. */
  readonly #zygotes: Zygotes;
  /** The size that the pool's machines have. */
  #expected: MachineSize | undefined;

  constructor(options: StandbyOptions) {
    this.#options = options;
    const { warm, nics, bringUp } = options;
    const { log } = bringUp;
    this.#zygotes = new Zygotes({
      bringUp,
      nics: () => nics.make(),
      discarded: (own) => nics.discard(own),
      lost: () => this.#pool.fillWhenQuiet(),
      log,
    });
    const { machines = 0, zygote = false, rehearsal } = warm ?? {};
    this.#pool = new WarmPool({
      size: machines,
      make: async (furnishing) =>
        rehearsal && this.#makeWarm(rehearsal, furnishing),
      discarded: (pooled) => nics.discard(pooled.nics),
      ...(zygote &&
        rehearsal && {
          origins: {
            count: () => this.#zygotes.length,
            prepare: (wish) => this.#prepareZygotes(rehearsal, wish),
            letImagesGo: () => this.#zygotes.letImagesGo(),
            close: () => this.#zygotes.close(),
          },
        }),
      availableMemory: availableShare,
      log,
    });
  }

  get warmMachines(): number {
    return this.#pool.length;
  }

  get zygotes(): number {
    return this.#zygotes.length;
  }

  /** Makes the template of such machines in the background, unless it is there, and fills the pool. */
  async expect(size: MachineSize): Promise<void> {
    const { templates } = this.#options.bringUp;
    this.#expected = size;
    const { on, shape } = await this.#options.kind(size);
    const template = await templates.open(on, shape);
    if (template) await template.state.close();
    else await templates.make(on, shape);
    await this.#pool.fill();
  }

  /** A machine of the pool, which is the caller's from now on; undefined where it has none of that shape. */
  take(
    on: TemplatePlatform,
    shape: MachineShape,
    furnishing: Furnishing | undefined,
  ): Pooled<QemuMachine> | undefined {
    return this.#isExpected(shape)
      ? this.#pool.take(poolKey(on, shape), furnishing)
      : undefined;
  }

  /** The machine that `take` would give goes on for a moment. */
  rouse(on: TemplatePlatform, shape: MachineShape, wish?: Disks): void {
    if (!this.#isExpected(shape)) return;
    this.#pool.choose(poolKey(on, shape), wish)?.machine.rouse();
  }

  #isExpected(shape: MachineShape): boolean {
    if (!this.#expected) return false;
    const expected = shapeOf(this.#expected, shape.nics);
    return shapeName(shape) === shapeName(expected);
  }

  /** Where the pool is empty, or there is none for such machines. */
  async forkOrBringUp(
    on: TemplatePlatform,
    shape: MachineShape,
    nics: NicBackend[],
    furnishing: Furnishing | undefined,
  ): Promise<QemuMachine> {
    const kind = { on, shape, key: poolKey(on, shape) };
    return (
      (await this.#zygotes.fork(kind, nics, furnishing)) ??
      (await bringUp(on, shape, nics, this.#options.bringUp))
    );
  }

  /** The next machine of that shape is to find a template; the one that starts now goes first. */
  makeLater(on: TemplatePlatform, shape: MachineShape): void {
    const { templates } = this.#options.bringUp;
    setTimeout(() => {
      void templates.make(on, shape).then(() => this.#pool.fill());
    }, MAKE_LATER_MS).unref();
  }

  /** Ends all that stands ready. */
  close(): Promise<void> {
    return this.#pool.close();
  }

  async #prepareZygotes(
    rehearsal: Rehearsal,
    wish: Furnishing | undefined,
  ): Promise<void> {
    if (!this.#expected) return;
    const { on, shape } = await this.#options.kind(this.#expected);
    const kind = { on, shape, key: poolKey(on, shape) };
    await this.#zygotes.prepare(kind, rehearsal, wish);
  }

  /** A machine for the pool; undefined while there is no template. */
  async #makeWarm(
    rehearsal: Rehearsal,
    furnishing: Furnishing | undefined,
  ): Promise<Pooled<QemuMachine> | undefined> {
    if (!this.#expected) return undefined;
    const { on, shape } = await this.#options.kind(this.#expected);
    const nics = await this.#options.nics.make();
    const key = poolKey(on, shape);
    let machine: QemuMachine | string | undefined;
    try {
      const kind = { on, shape, key };
      machine = await this.#zygotes.fork(kind, nics, furnishing);
      if (machine) {
        await machine.pause();
      } else {
        machine = await restore(on, shape, nics, this.#options.bringUp);
        if (typeof machine !== "object") {
          this.#options.nics.discard(nics);
          return undefined;
        }
        await rehearse(machine, rehearsal);
      }
      if (furnishing && !machine.furnished) {
        const blank = await rehearsal.blank(furnishing.blankBytes);
        await furnish(machine, furnishing, blank, rehearsal);
      }
      if (furnishing) await load(machine, furnishing, rehearsal);
      return { machine, nics, key, ...(furnishing && { furnishing }) };
    } catch (error) {
      if (typeof machine === "object") await machine.kill();
      this.#options.nics.discard(nics);
      throw error;
    }
  }
}

function poolKey(on: TemplatePlatform, shape: MachineShape): string {
  return `${on.platformKey} ${shapeName(shape)}`;
}
