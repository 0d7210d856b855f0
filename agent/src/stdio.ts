/** The descriptors of a new process's streams. */
import {
  Channel as StreamChannel,
  WINDOW,
  streamOf,
} from "../../protocol/index.js";
import type { Channel } from "./channel.js";
import type { EventLoop } from "./loop.js";
import { OutputStream } from "./streams.js";

/** The child's three, and the agent's ends. */
export interface Stdio {
  child: [number, number, number];
  input: number;
  output: number;
  error: number;
  terminal: number;
}

/** Of a process without a terminal. */
export function openPipes(stdin: boolean): Stdio {
  const [stdinRead, stdinWrite] = stdin ? sys.pipe() : [-1, -1];
  const [stdoutRead, stdoutWrite] = sys.pipe();
  const [stderrRead, stderrWrite] = sys.pipe();
  for (const fd of [stdinWrite, stdoutRead, stderrRead])
    if (fd >= 0) sys.nonblock(fd);
  // A busy writer fills it before the agent comes to read: fewer turns for the same bytes.
  sys.setPipeSize(stdoutRead, WINDOW);
  return {
    child: [stdinRead, stdoutWrite, stderrWrite],
    input: stdinWrite,
    output: stdoutRead,
    error: stderrRead,
    terminal: -1,
  };
}

/** The streams of the agent's ends. @param id of the process whose they are */
export function openOutputs(
  id: number,
  { output, error }: Pick<Stdio, "output" | "error">,
  loop: EventLoop,
  channel: Channel,
): OutputStream[] {
  const outputs = [
    new OutputStream(streamOf(id, StreamChannel.Stdout), output, loop, channel),
  ];
  if (error >= 0)
    outputs.push(
      new OutputStream(
        streamOf(id, StreamChannel.Stderr),
        error,
        loop,
        channel,
      ),
    );
  return outputs;
}

/** Closes what is the child's. */
export function closeChilds({ child }: Stdio, report: number): void {
  // Of a terminal they are one.
  closeAll(child[0] === child[1] ? [child[0], report] : [...child, report]);
}

/** Closes what is open of these. */
export function closeAll(fds: number[]): void {
  for (const fd of fds) if (fd >= 0) sys.close(fd);
}
