/** What a failed start or exec means to a Docker user: exit code, status and wording. */
import { InvalidParameter, SystemError, HullError } from "../errors.js";
import { AgentFailure } from "../hypervisor/index.js";

const COULD_NOT_RUN = 128;
const EXEC_REFUSED = 126;

/** The exit code Docker books for a process that could not be started. */
export function exitCodeOf(error: Error): number {
  if (!(error instanceof AgentFailure)) return COULD_NOT_RUN;
  switch (error.code) {
    case "executable-not-found":
      return 127;
    case "executable-not-runnable":
      return 126;
    default:
      // The Engine goes by these words, whatever it is that is not there.
      return error.message.includes("no such file or directory")
        ? 127
        : COULD_NOT_RUN;
  }
}

/** The same of an exec, whose user is looked up before its process is begun. */
export function execExitCodeOf(error: Error): number {
  return error instanceof AgentFailure && error.code !== "no-such-user"
    ? exitCodeOf(error)
    : EXEC_REFUSED;
}

/** The error a client is answered with; the docker CLI reads its own exit code out of the wording. */
export function startError(error: Error): Error {
  if (!(error instanceof AgentFailure)) {
    return error instanceof HullError ? error : new SystemError(error.message);
  }
  const words = `failed to create task for container: unable to start container process: ${error.message}`;
  switch (error.code) {
    case "executable-not-found":
    case "executable-not-runnable":
      return new InvalidParameter(words);
    case "no-such-user":
      return new InvalidParameter(error.message);
    default:
      return new SystemError(words);
  }
}

/** The same for an exec; Docker writes these words into the exec's own output. */
export function execError(error: Error): Error {
  if (!(error instanceof AgentFailure)) return startError(error);
  const words = `OCI runtime exec failed: exec failed: unable to start container process: ${error.message}: unknown`;
  switch (error.code) {
    case "executable-not-found":
    case "executable-not-runnable":
      return new InvalidParameter(words);
    case "no-such-user":
      return new InvalidParameter(error.message);
    default:
      return new SystemError(words);
  }
}
