/** Restarts by policy: after a while, which grows as long as the runs are short. */
import type { Container } from "../container.js";
import { restartDelay } from "../restart-policy.js";
import type { RunContext } from "./context.js";

/** A run of this many ms makes the next restart prompt again. */
const LONG_RUN = 10_000;

export class PolicyRestarts {
  readonly #context: RunContext;
  readonly #start: (container: Container) => Promise<void>;

  /** @param start starts a container; it is called in the container's turn */
  constructor(
    context: RunContext,
    start: (container: Container) => Promise<void>,
  ) {
    this.#context = context;
    this.#start = start;
  }

  /** @param ms how long the run took that has ended */
  countRun(container: Container, ms: number): void {
    container.quickRestarts = ms > LONG_RUN ? 0 : container.quickRestarts + 1;
  }

  /** Starts it again after a while; `container.cancelRestart` calls that off. */
  schedule(container: Container): void {
    const { record } = container;
    record.state.status = "restarting";
    const timer = setTimeout(
      () => {
        container.cancelRestart = undefined;
        record.restartCount++;
        void this.#restartNow(container);
      },
      restartDelay(container.quickRestarts - 1),
    );
    container.cancelRestart = () => {
      clearTimeout(timer);
      container.cancelRestart = undefined;
      record.state.status = "exited";
      container.notifyExit();
    };
  }

  async #restartNow(container: Container): Promise<void> {
    try {
      await container.exclusive(async () => {
        if (container.record.state.status !== "restarting") return;
        await this.#start(container);
      });
    } catch (error) {
      this.#context.log.error(
        { err: error, container: container.id },
        "restart by policy failed",
      );
    }
  }
}
