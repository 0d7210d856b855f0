/** What the agent answers when it cannot do what was asked. */
import type { AgentError, AgentErrorCode } from "../../protocol/index.js";
import { isSysError } from "./sys.js";

/** A refusal with the code and message the host gets to see. */
export class Failure extends Error {
  constructor(
    readonly code: AgentErrorCode,
    message: string,
    readonly errno?: string,
  ) {
    super(message);
  }
}

/** Any exception as the error of a response. */
export function toAgentError(error: unknown): AgentError {
  if (error instanceof Failure) {
    const { code, message, errno } = error;
    return errno === undefined ? { code, message } : { code, message, errno };
  }
  if (isSysError(error))
    return { code: "system", message: error.message, errno: error.errno };
  return { code: "system", message: describe(error) };
}

/** An exception in words, for a log. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return isSysError(error) ? `${error.errno}: ${error.message}` : error.message;
}

/** Runs `call`; says what was being done when it fails. */
export function step<T>(what: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw failureOf(what, error);
  }
}

/** An exception with what was being done. */
export function failureOf(what: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  return new Failure(
    "system",
    `${what}: ${error instanceof Error ? error.message : String(error)}`,
    isSysError(error) ? error.errno : undefined,
  );
}
