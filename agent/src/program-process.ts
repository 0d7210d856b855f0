/** A process of the container: its own one, or one beside it (exec). */
import type { Spawn } from "../../protocol/index.js";
import { runChild } from "./child.js";
import {
  CLONE_NEWIPC,
  CLONE_NEWNS,
  CLONE_NEWPID,
  CLONE_NEWUTS,
} from "./constants.js";
import { Failure, step } from "./failure.js";
import type { FirstProcess } from "./first-process.js";
import { Process, failureFrom, type ProcessContext } from "./process.js";
import type { Stdio } from "./stdio.js";
import { isSysError } from "./sys.js";

export class ProgramProcess extends Process {
  constructor(
    private readonly spawn: Spawn,
    /** The request for it, as it came. */
    private readonly request: string,
    context: ProcessContext,
  ) {
    super(spawn, context);
  }

  protected override fork(stdio: Stdio["child"], report: number): number {
    const { container, init } = this.context;
    const pid = init ? this.cloneInside(init.pidfd) : this.cloneFirst();
    if (pid === 0)
      runChild({
        spawn: this.spawn,
        container,
        stdio,
        ...(init ? { init: init.pidfd } : {}),
        report,
      });
    return pid;
  }

  protected override order(made: FirstProcess): void {
    made.go(this.context.container.setup, this.request);
  }

  /** Nothing is said once the program runs. */
  protected override accept(report: string): void {
    if (report !== "") throw failureFrom(report);
  }

  private cloneFirst(): number {
    const flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC;
    return step("clone", () => sys.clone(flags, this.context.container.cgroup));
  }

  private cloneInside(pidfd: number): number {
    const { container, ownPidNamespace } = this.context;
    // Only children are born into that PID namespace; the agent itself stays in its own.
    try {
      sys.setns(pidfd, CLONE_NEWPID);
    } catch (error) {
      if (!isSysError(error) || error.errno !== "ESRCH") throw error;
      throw new Failure("invalid", "the container is not running");
    }
    let pid = -1;
    try {
      pid = step("clone", () => sys.clone(0, container.cgroup));
      return pid;
    } finally {
      if (pid !== 0) sys.setns(ownPidNamespace, CLONE_NEWPID);
    }
  }
}
