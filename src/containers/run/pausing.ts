/** Pause and unpause: the guest's processes and its machine stand still. */
import { Conflict, SystemError } from "../../errors.js";
import type { Machine } from "../../hypervisor/index.js";
import type { Container } from "../container.js";
import { notRunning } from "../execs.js";
import { sampleUsage } from "../usage.js";
import type { RunContext } from "./context.js";
import { within } from "./within.js";

/** How long a guest may take to freeze its processes before its machine stands still all the same, in ms. */
const FREEZE_LIMIT = 2000;

export class Pausing {
  readonly #context: RunContext;

  constructor(context: RunContext) {
    this.#context = context;
  }

  /** @throws {Conflict} it does not run, or is paused already */
  async pause(container: Container): Promise<void> {
    await container.exclusive(async () => {
      const { state } = container.record;
      if (state.status === "paused") {
        throw new Conflict(`Container ${container.id} is already paused`);
      }
      if (state.status !== "running" || !container.machine) {
        throw notRunning(container);
      }
      this.#context.health.stop(container);
      // A guest that stands still cannot be asked.
      await sampleUsage(container);
      // Its processes stand still also while the machine goes on for the sake of its files.
      await freeze(container.machine, true);
      await container.machine.pause();
      state.status = "paused";
      this.#context.tell(container, "pause");
      await container.save();
    });
  }

  /** @throws {SystemError} it is not paused; Docker answers 500 here */
  async unpause(container: Container): Promise<void> {
    await container.exclusive(async () => {
      const { state } = container.record;
      if (state.status !== "paused" || !container.machine) {
        throw new SystemError(`Container ${container.id} is not paused`);
      }
      await container.machine.resume();
      await freeze(container.machine, false);
      state.status = "running";
      this.#context.tell(container, "unpause");
      this.#context.health.resume(container);
      await container.save();
    });
  }
}

/** Stops or continues the guest's processes; a guest that does not answer is not waited for long. */
export async function freeze(machine: Machine, frozen: boolean): Promise<void> {
  const request = machine.agent.request("freeze", { frozen });
  await within(
    request.catch(() => undefined),
    FREEZE_LIMIT,
  );
}
