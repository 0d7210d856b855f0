/** `nft` as a running process: 0.4 ms for the rules of one tap, against 3 to 13 ms and the fork for one that is started. */
import { runTool } from "./command.js";
import { CommandShell, ToolEnded } from "./command-shell.js";

/** Ends a group: no command, so that `nft` complains at once, on stderr, and points below it at what it misses. */
const MARKER = "hull-end-of-commands";
const COMPLAINT = new RegExp(`[^\\n]*\\n${MARKER}\\n *\\^+\\n$`);

/** Each group is one transaction: all of it is done, or nothing. */
export class NftShell {
  readonly #shell = new CommandShell({
    program: "nft",
    args: ["--interactive"],
    // Where it would keep a history of what it was told.
    env: { HOME: "/nonexistent" },
    lines: (commands) => [
      ...(commands.length > 0 ? [commands.join(" ; ")] : []),
      MARKER,
    ],
    outcome: (stderr) => {
      const end = COMPLAINT.exec(stderr);
      if (!end) return undefined;
      const words = stderr.slice(0, end.index).trim();
      return { failure: words ? `nft: ${words}` : undefined };
    },
  });

  /** @throws {SystemError} nft refused, in its words */
  async run(commands: readonly string[]): Promise<void> {
    try {
      await this.#shell.run(commands);
    } catch (error) {
      if (!(error instanceof ToolEnded)) throw error;
      // One that was built without the interactive mode, or that somebody killed.
      await runTool("nft", ["-f", "-"], [...commands, ""].join("\n"));
    }
  }

  /** Ends the process once it has done what was asked so far. */
  close(): Promise<void> {
    return this.#shell.close();
  }
}
