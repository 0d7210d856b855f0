/** The NICs that machines come up with, and the tap devices behind them. */
import type { Taps } from "../index.js";
import { NIC_SLOTS } from "../slots.js";
import type { NicBackend } from "./command-line.js";
import type { MachineShape } from "./shape.js";

export class Nics {
  readonly #taps: Taps | undefined;
  #kind: MachineShape["nics"] | undefined;

  /** @param taps absent: machines have QEMU's user mode */
  constructor(taps: Taps | undefined) {
    this.#taps = taps;
  }

  /** The NICs of a machine that is to run. */
  async make(): Promise<NicBackend[]> {
    const taps = this.#taps;
    const made = await Promise.all(
      Array.from({ length: NIC_SLOTS }, async () => taps?.createTap()),
    );
    return made.map((device, slot) =>
      device !== undefined
        ? { kind: "tap", device }
        : { kind: slot === 0 ? "user" : "hub" },
    );
  }

  /** Like `make`, but none of user mode: its state could not be loaded by a machine with taps. */
  async makeForTemplate(shape: MachineShape): Promise<NicBackend[]> {
    if (shape.nics === "tap") return this.make();
    return Array.from({ length: NIC_SLOTS }, () => ({ kind: "hub" }));
  }

  /** Found out once, by making a tap. */
  async kind(): Promise<MachineShape["nics"]> {
    if (this.#kind === undefined) {
      const tap = await this.#taps?.createTap();
      if (tap !== undefined) this.#taps?.discardTap(tap);
      this.#kind = tap === undefined ? "user" : "tap";
    }
    return this.#kind;
  }

  /** Takes their taps back. */
  discard(nics: NicBackend[]): void {
    for (const device of tapsOf(nics)) this.#taps?.discardTap(device);
  }
}

/** The tap devices, by the NICs' places. */
export function tapsOf(nics: NicBackend[]): string[] {
  return nics.flatMap((nic) => (nic.kind === "tap" ? [nic.device] : []));
}
