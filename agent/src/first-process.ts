/**
 * The first process of an ordinary container, made before it is known which container it is: it has its
 * namespaces, its root and the file systems that belong to them, and waits for the rest.
 */
import {
  INIT_PROCESS,
  SPAWN_DEFAULTS,
  type Furnish,
  type Setup,
  type Spawn,
} from "../../protocol/index.js";
import type { Channel } from "./channel.js";
import { runWaitingChild } from "./child.js";
import {
  CLONE_NEWIPC,
  CLONE_NEWNS,
  CLONE_NEWPID,
  CLONE_NEWUTS,
  SIGKILL,
} from "./constants.js";
import { step } from "./failure.js";
import { readUntil, writeAll } from "./files.js";
import type { EventLoop } from "./loop.js";
import { Report } from "./report.js";
import { closeAll, closeChilds, openOutputs, openPipes } from "./stdio.js";
import type { OutputStream } from "./streams.js";

export type Names = Pick<Setup, "hostname" | "domainname">;

/** Between the names and the request, in the order that tells the process which container's it is. */
const SEPARATOR = "\t";
/** Ends the order: JSON has it in no place. */
const END = "\0";
/** Characters of a PID, at most. */
const MAX_PID = 16;

const NAMESPACES = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC;

export class FirstProcess {
  private constructor(
    readonly pid: number,
    readonly pidfd: number,
    /** Where its stdin comes from, should it have one. */
    private input: number,
    readonly outputs: readonly OutputStream[],
    /** How its start went. */
    readonly report: Report,
    private readonly order: number,
    /** PID of the process whose memory it has until it is executed, see `cloneOnto`. */
    readonly lender: number,
  ) {}

  /** Comes back when it waits; undefined when it cannot be made: a start that does without says why. */
  static make(
    furnish: Furnish,
    cgroup: number,
    loop: EventLoop,
    channel: Channel,
  ): FirstProcess | undefined {
    const stdio = openPipes(true);
    const [report, reportWrite] = sys.pipe();
    const [order, orderWrite] = sys.pipe();
    const [ready, readyWrite] = sys.pipe();
    const lender = step("clone", () => sys.clone(0, -1));
    if (lender === 0)
      runWaitingChild({
        furnish,
        begin: () => sys.cloneOnto(NAMESPACES, cgroup),
        order,
        ready: readyWrite,
        stdio: stdio.child,
        report: reportWrite,
      });
    sys.close(order);
    sys.close(readyWrite);
    closeChilds(stdio, reportWrite);
    const pid = Number(readUntil(ready, END, new ArrayBuffer(MAX_PID)));
    sys.close(ready);
    sys.ownMemory();
    if (pid > 0) {
      const outputs = openOutputs(INIT_PROCESS, stdio, loop, channel);
      for (const output of outputs) output.reserve();
      return new FirstProcess(
        pid,
        sys.pidfd(pid),
        stdio.input,
        outputs,
        new Report(report, loop),
        orderWrite,
        lender,
      );
    }
    const { input, output, error } = stdio;
    closeAll([input, output, error, report, orderWrite]);
    sys.kill(lender, SIGKILL);
    return undefined;
  }

  /** Whether it is as that container's process has to be. */
  fits(setup: Setup, spawn: Spawn): boolean {
    const { rootfs, sysctls, maskedPaths, readonlyPaths } = setup;
    return (
      spawn.tty === undefined &&
      !rootfs?.readonly &&
      maskedPaths === undefined &&
      readonlyPaths === undefined &&
      (!sysctls || Object.keys(sysctls).length === 0) &&
      (!spawn.capabilities || areDefault(spawn.capabilities))
    );
  }

  /** @param wanted whether it has a stdin */
  takeInput(wanted: boolean): number {
    const { input } = this;
    this.input = -1;
    if (wanted) return input;
    sys.close(input);
    return -1;
  }

  /**
   * It goes on, and becomes the program.
   * @param request the request to spawn it, as it came: to write it again takes longer than to read it
   */
  go({ hostname, domainname }: Names, request: string): void {
    const names = JSON.stringify({ hostname, domainname });
    writeAll(this.order, sys.encode(names + SEPARATOR + request + END));
    sys.close(this.order);
  }

  /** Nobody needs it. It is gone when this comes back: it would count among the container's processes. */
  end(): void {
    sys.kill(this.pid, SIGKILL);
    sys.reap(this.pid);
    this.close();
  }

  /** It has ended by itself. */
  close(): void {
    for (const output of this.outputs) output.close();
    this.report.close();
    closeAll([this.pidfd, this.input, this.order]);
  }
}

function areDefault(capabilities: readonly string[]): boolean {
  const all: readonly string[] = SPAWN_DEFAULTS.capabilities;
  return capabilities.every((name) => all.includes(name));
}

/** What `go` was told. @param buffer to begin with */
export function readOrder(
  fd: number,
  buffer: ArrayBuffer,
): { names: Names; spawn: Spawn } {
  const order = readUntil(fd, END, buffer);
  const at = order.indexOf(SEPARATOR);
  const { args } = JSON.parse(order.slice(at + 1)) as { args: Spawn };
  return { names: JSON.parse(order.slice(0, at)) as Names, spawn: args };
}
