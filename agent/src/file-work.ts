/** Work on the container's files as a process of the agent; see protocol/messages.ts, FileWork. */
import { WINDOW, type FileWork, type PathStat } from "../../protocol/index.js";
import { SIGKILL } from "./constants.js";
import { Failure, step } from "./failure.js";
import { Process, failureFrom, type ProcessContext } from "./process.js";
import type { Stdio } from "./stdio.js";
import { unless } from "./sys.js";
import { runTask, type Begun } from "./tree/task.js";

export class FileProcess extends Process {
  /** What it said when it began. */
  stat: PathStat | undefined;
  private child = 0;

  constructor(
    private readonly work: FileWork,
    context: ProcessContext,
  ) {
    super(
      { process: work.process, stdin: work.task.do === "extract" },
      context,
    );
  }

  /** Ends it; nobody wants what it does any more. */
  abandon(): void {
    if (this.child > 0 && !this.exit)
      unless(["ESRCH"], () => sys.kill(this.child, SIGKILL));
  }

  /** Not in the container's cgroup: its limits are not for the engine's work. */
  protected override fork(stdio: Stdio["child"], report: number): number {
    // As much as may be under way: the channel need not wait for us, nor we for it.
    if (stdio[0] >= 0) sys.setPipeSize(stdio[0], WINDOW);
    const pid = step("clone", () => sys.clone(0, -1));
    if (pid === 0)
      runTask(this.work.task, this.context.container, stdio, report);
    this.child = pid;
    return pid;
  }

  protected override accept(report: string): void {
    if (!report.startsWith('{"begun":')) throw failureFrom(report);
    const { begun } = JSON.parse(report) as { begun: Begun };
    this.stat = begun.stat;
  }
}

const TASKS = ["stat", "archive", "extract", "export", "changes", "layer"];

/** @throws {Failure} `invalid`, naming the field */
export function checkFileWork({ task }: FileWork): void {
  const { path, owner } = task as Record<string, unknown>;
  if (!TASKS.includes(task.do))
    throw new Failure("invalid", `task.do: ${JSON.stringify(task.do)}`);
  const needsPath = TASKS.indexOf(task.do) < 3;
  if (needsPath && typeof path !== "string")
    throw new Failure("invalid", "task.path: string is expected");
  if (task.do === "extract" && typeof owner !== "string")
    throw new Failure("invalid", "task.owner: string is expected");
}
