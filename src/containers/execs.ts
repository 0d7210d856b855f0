/** Processes beside a container's own: `docker exec`. */
import { Conflict, NotFound } from "../errors.js";
import type { ProcessExit } from "../../protocol/index.js";
import type { Container } from "./container.js";
import type { Tell } from "./container-events.js";
import type { ExecRequest } from "./create-request.js";
import { execSpawn } from "./machine-spec.js";
import { newId } from "./names.js";
import { execError, execExitCodeOf } from "./start-error.js";
import { Stdio } from "./stdio.js";

/** How long an exec that has ended can still be inspected, in ms. */
const KEPT = 5 * 60_000;
/** How long what a dead exec wrote may take to arrive, in ms, when a descendant holds its streams. */
const DRAIN_LIMIT = 5000;

export interface Exec {
  id: string;
  container: Container;
  request: ExecRequest;
  stdio: Stdio;
  state: "created" | "running" | "exited";
  exitCode: number | null;
  pid: number;
  /** Its number in the machine, once started. */
  process: number;
}

export class Execs {
  readonly #execs = new Map<string, Exec>();
  readonly #tell: Tell;

  constructor(tell: Tell) {
    this.#tell = tell;
  }

  /**
   * @throws {Conflict} the container does not run
   */
  create(container: Container, request: ExecRequest): Exec {
    requireRunning(container);
    const exec: Exec = {
      id: newId(),
      container,
      request,
      stdio: new Stdio(request.Tty ? ["stdout"] : ["stdout", "stderr"]),
      state: "created",
      exitCode: null,
      pid: 0,
      process: 0,
    };
    this.#execs.set(exec.id, exec);
    this.#event(exec, `exec_create: ${(request.Cmd ?? []).join(" ")}`);
    return exec;
  }

  /** @throws {NotFound} in Docker's words */
  get(id: string): Exec {
    const exec = this.#execs.get(id);
    if (!exec) throw new NotFound(`No such exec instance: ${id}`);
    return exec;
  }

  /** IDs of a container's execs that run or may still be started. */
  of(container: Container): string[] {
    return [...this.#execs.values()]
      .filter((exec) => exec.container === container && exec.state !== "exited")
      .map((exec) => exec.id);
  }

  /** Fails where `start` would, before a client's connection is taken over. */
  checkStart(exec: Exec): void {
    if (exec.state !== "created") {
      throw new Conflict(`Error: Exec command ${exec.id} has already run`);
    }
    requireRunning(exec.container);
  }

  /**
   * Starts it; resolves when it was executed.
   * @throws {Conflict} it was started before, or the container does not run
   * @throws {InvalidParameter} its command cannot be executed
   */
  async start(exec: Exec, size?: [number, number]): Promise<void> {
    this.checkStart(exec);
    const { container, request } = exec;
    const machine = container.machine;
    if (!machine) throw notRunning(container);
    exec.state = "running";
    exec.process = container.nextProcess++;
    if (size) request.ConsoleSize = size;
    exec.stdio.connectOutput(machine.agent, exec.process);
    this.#event(exec, `exec_start: ${(request.Cmd ?? []).join(" ")}`);
    try {
      const spawn = execSpawn(container.record, exec.process, request);
      const answer = machine.agent.request("spawn", spawn);
      exec.stdio.connectInput(
        request.AttachStdin ? machine.agent.input(exec.process) : undefined,
      );
      exec.pid = (await answer).pid;
    } catch (error) {
      this.#booked(exec, execExitCodeOf(error as Error));
      throw execError(error as Error);
    }
  }

  /** The agent reports the end of a process that is not the container's own. */
  async exited(
    container: Container,
    process: number,
    exit: ProcessExit,
  ): Promise<void> {
    // Numbers begin again with each machine of a container: an exec of an earlier one has ended.
    const exec = [...this.#execs.values()].find(
      (one) =>
        one.container === container &&
        one.process === process &&
        one.state === "running",
    );
    if (exec) {
      const limit = timeout(DRAIN_LIMIT);
      await Promise.race([exec.stdio.drained, limit.done]);
      limit.clear();
      this.#booked(exec, exit.code);
      await exec.stdio.finish();
    }
    await container.machine?.agent
      .request("release", { process })
      .catch(() => undefined);
  }

  /** The machine is gone, and all that ran in it. */
  async machineEnded(container: Container): Promise<void> {
    for (const exec of this.#execs.values()) {
      if (exec.container !== container) continue;
      if (exec.state === "running") this.#booked(exec, 137);
      await exec.stdio.finish();
    }
  }

  /** Forgets the execs of a container that is removed. */
  forget(container: Container): void {
    for (const exec of this.#execs.values()) {
      if (exec.container === container) this.#execs.delete(exec.id);
    }
  }

  /** Forgets an exec nobody else knows of. */
  discard(exec: Exec): void {
    this.#execs.delete(exec.id);
  }

  /** @throws {Conflict} it does not run */
  async resize(exec: Exec, rows: number, columns: number): Promise<void> {
    const { machine } = exec.container;
    if (exec.state !== "running" || !machine) {
      throw new Conflict(`exec process is not running: ${exec.id}`);
    }
    const { process } = exec;
    await machine.agent.request("resize", { process, rows, columns });
  }

  #booked(exec: Exec, exitCode: number): void {
    if (exec.state === "exited") return;
    exec.state = "exited";
    exec.exitCode = exitCode;
    setTimeout(() => this.discard(exec), KEPT).unref();
    this.#event(exec, "exec_die", { exitCode: String(exitCode) });
  }

  #event(exec: Exec, action: string, more: Record<string, string> = {}): void {
    this.#tell(exec.container, action, { execID: exec.id, ...more });
  }
}

/** @throws {Conflict} in Docker's words */
export function requireRunning(container: Container): void {
  const { status } = container.record.state;
  if (status === "paused") {
    throw new Conflict(
      `Container ${container.record.name} is paused, unpause the container before exec`,
    );
  }
  if (status !== "running") throw notRunning(container);
}

/** What Docker answers when a container would have to run. */
export function notRunning(container: Container): Conflict {
  return new Conflict(`container ${container.id} is not running`);
}

function timeout(ms: number) {
  let timer: NodeJS.Timeout | undefined;
  const done = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  return { done, clear: () => clearTimeout(timer) };
}
