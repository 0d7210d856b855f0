import { Unavailable } from "../../errors.js";
import type { BlankMachine, Machine, MachineSpec } from "../index.js";
import { checkFiles, checkSlots, handOver } from "./handover.js";
import { LAUNCH_FAILED } from "./launch.js";
import type { QemuMachine } from "./machine.js";
import { QmpError } from "./qmp.js";

/** Gives a machine what it is to be, and has it run. */
export type Give = (machine: QemuMachine, spec: MachineSpec) => Promise<void>;

/** A machine that comes up, or is up, and has no owner yet. */
export class Blank implements BlankMachine {
  readonly taps: readonly string[];
  readonly #machine: Promise<QemuMachine>;
  readonly #give: Give;

  constructor(
    taps: readonly string[],
    machine: Promise<QemuMachine>,
    give: Give = timedHandOver,
  ) {
    this.taps = taps;
    this.#machine = machine;
    this.#give = give;
    // Told to whoever calls `start`.
    machine.catch(() => undefined);
  }

  async start(spec: MachineSpec): Promise<Machine> {
    try {
      checkSlots(spec);
      checkFiles(spec);
    } catch (error) {
      this.discard();
      throw error;
    }
    const machine = await this.#machine;
    try {
      await this.#give(machine, spec);
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

async function timedHandOver(
  machine: QemuMachine,
  spec: MachineSpec,
): Promise<void> {
  const began = performance.now();
  await handOver(machine, spec);
  const ms = performance.now() - began;
  machine.spans.push({ name: "handover", ms });
}
