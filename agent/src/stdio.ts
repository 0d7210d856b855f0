/** The descriptors of a new process's streams. */
import { WINDOW } from "../../protocol/index.js";

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
