/** `ip` as a running process: 0.9 ms for tap, master and up, against 2.7 ms and the fork for one that is started. */
import { CommandShell } from "./command-shell.js";

/** Ends a group of commands: no such object exists, so that `ip` answers at once, on stderr. */
const MARKER = "hull-end-of-commands";

/**
 * Commands go without the leading "ip". One that fails does not keep the ones behind it from being tried. `ip`
 * numbers the lines it reads and names the number of each that failed, so that errors are known to belong to
 * a command.
 */
export class IpBatch extends CommandShell {
  constructor() {
    super({
      program: "ip",
      args: ["-force", "-batch", "-"],
      lines: (commands) => [...commands, MARKER],
      outcome: (stderr, commands, before) => {
        const last = before + commands.length + 1;
        return stderr.includes(`Command failed -:${last}\n`)
          ? { failure: firstFailure(stderr, commands, before) }
          : undefined;
      },
      lastWords: firstFailure,
    });
  }
}

/** Finds the first of the commands, which began behind line `before`, that `ip` complained of. */
export function firstFailure(
  stderr: string,
  commands: readonly string[],
  before: number,
): string | undefined {
  const words: string[] = [];
  for (const line of stderr.split("\n")) {
    const number = /^Command failed -:(\d+)$/.exec(line)?.[1];
    if (number === undefined) {
      words.push(line);
      continue;
    }
    const command = commands[Number(number) - before - 1];
    if (command === undefined) {
      return undefined;
    }
    return `ip ${command}: ${words.join(" ").trim()}`;
  }
  return undefined;
}
