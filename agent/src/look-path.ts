/**
 * Finds the executable of a command as Go's exec.LookPath does, with its messages: Docker's users and
 * the docker CLI (which derives 126 and 127 from them) know these.
 */
import type { AgentErrorCode } from "../../protocol/index.js";
import { Failure } from "./failure.js";

/** Why a path cannot be executed: an errno and its text. */
export interface PathProblem {
  errno: string;
  text: string;
  /** The failed call is named in the message, e.g. "stat /nope". */
  call?: string;
}

/**
 * @param check says what keeps a path from being executed by the caller, if anything
 * @throws {Failure} `executable-not-found` or `executable-not-runnable`
 */
export function lookPath(
  name: string,
  path: string | undefined,
  check: (path: string) => PathProblem | undefined,
): string {
  if (name.includes("/")) {
    const problem = check(name);
    if (!problem) return name;
    const text = problem.call
      ? `${problem.call}: ${problem.text}`
      : problem.text;
    throw new Failure(
      execErrorCode(problem.errno),
      `exec: ${JSON.stringify(name)}: ${text}`,
      problem.errno,
    );
  }
  if (name !== "")
    for (const folder of (path ?? "").split(":")) {
      if (path === undefined || path === "") break;
      const candidate = `${folder === "" ? "." : folder}/${name}`;
      if (!check(candidate)) return candidate;
    }
  throw new Failure(
    "executable-not-found",
    `exec: ${JSON.stringify(name)}: executable file not found in $PATH`,
    "ENOENT",
  );
}

/** What an errno of looking up or executing a program means. */
export function execErrorCode(errno: string): AgentErrorCode {
  return errno === "ENOENT" || errno === "ENOTDIR" || errno === "ENAMETOOLONG"
    ? "executable-not-found"
    : "executable-not-runnable";
}
