import { Unavailable } from "../../errors.js";
import type { BlankMachine, Machine, MachineSpec } from "../index.js";
import { checkFiles, checkSlots, handOver } from "./handover.js";
import { LAUNCH_FAILED } from "./launch.js";
import type { QemuMachine } from "./machine.js";
import { QmpError } from "./qmp.js";

/** A machine that comes up, or is up, and has no owner yet. */
export class Blank implements BlankMachine {
  readonly taps: readonly string[];
  readonly #machine: Promise<QemuMachine>;

  constructor(taps: readonly string[], machine: Promise<QemuMachine>) {
    this.taps = taps;
    this.#machine = machine;
    // Told to whoever calls `start`.
    machine.catch(() => undefined);
  }

  async start(spec: MachineSpec): Promise<Machine> {
    try {
      checkSlots(spec);
      await checkFiles(spec);
    } catch (error) {
      this.discard();
      throw error;
    }
    const machine = await this.#machine;
    const began = performance.now();
    try {
      await handOver(machine, spec);
      const ms = performance.now() - began;
      machine.spans.push({ name: "handover", ms });
    } catch (error) {
      await machine.kill();
      throw error instanceof QmpError
        ? new Unavailable(`${LAUNCH_FAILED}${error.message}`)
        : error;
    }
    return machine;
  }

  discard(): void {
    void this.#machine.then(
      (machine) => machine.kill(),
      () => undefined,
    );
  }
}
