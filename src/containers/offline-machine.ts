/**
 * A machine on the disks of a container that does not run, without a process of the container's: what
 * a guest wrote is read by a guest. Shared by all who want something of the container's files at a time.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { Setup } from "../../protocol/index.js";
import type {
  Hypervisor,
  Machine,
  MachineSize,
  MachineSpec,
} from "../hypervisor/index.js";
import { ANSWER_LIMIT, answerWithin } from "./run/within.js";
import { MachineFiles } from "./machine-files.js";

/** How long it waits for the next user, in ms: `docker cp` makes two requests. */
const LINGER = 2000;
/** How long a guest may take to flush its disks, in ms. */
const SHUTDOWN_LIMIT = 10_000;

export class OfflineMachine {
  readonly files: MachineFiles;
  readonly #machine: Machine;
  readonly #onIdle: () => void;
  #nextProcess = 2;
  #users = 0;
  #timer: NodeJS.Timeout | undefined;
  #idle: (() => void)[] = [];

  private constructor(machine: Machine, onIdle: () => void) {
    this.#machine = machine;
    this.#onIdle = onIdle;
    this.files = new MachineFiles(machine, () => this.#nextProcess++);
    machine.agent.onEvent((event) => {
      if (event.event === "exit") this.files.exited(event.process, event.exit);
    });
  }

  /**
   * @param serve begins to serve the binds and volumes to the machine
   * @param onIdle called when nobody has used it for a while: the caller ends it
   * @throws {Unavailable} it cannot be started
   */
  static async boot(
    hypervisor: Hypervisor,
    size: MachineSize,
    spec: MachineSpec,
    setup: Setup,
    serve: (machine: Machine) => Promise<void>,
    onIdle: () => void,
  ): Promise<OfflineMachine> {
    const blank = await hypervisor.prepare(size);
    const machine = await blank.start(spec);
    try {
      await serve(machine);
      await answerWithin(
        machine.agent.request("setup", setup),
        "setup",
        ANSWER_LIMIT,
      );
    } catch (error) {
      await machine.kill();
      throw error;
    }
    return new OfflineMachine(machine, onIdle);
  }

  get exited(): Promise<unknown> {
    return this.#machine.exited;
  }

  /** @returns ends the use */
  use(): () => void {
    clearTimeout(this.#timer);
    this.#users++;
    let used = true;
    return () => {
      if (!used) return;
      used = false;
      if (--this.#users > 0) return;
      for (const resolve of this.#idle.splice(0)) resolve();
      this.#timer = setTimeout(this.#onIdle, LINGER);
    };
  }

  get inUse(): boolean {
    return this.#users > 0;
  }

  /** Ends it in order when nobody uses it any more, or at once. */
  async end(now: boolean): Promise<void> {
    if (!now && this.#users > 0)
      await Promise.race([
        new Promise<void>((resolve) => this.#idle.push(resolve)),
        this.#machine.exited,
      ]);
    clearTimeout(this.#timer);
    const limit = new AbortController();
    await Promise.race([
      this.#machine.agent.request("shutdown", {}).catch(() => undefined),
      this.#machine.exited,
      delay(SHUTDOWN_LIMIT, undefined, { signal: limit.signal }).catch(
        () => undefined,
      ),
    ]);
    limit.abort();
    await this.#machine.kill();
    await this.#machine.exited;
  }
}
