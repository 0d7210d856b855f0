import type { AgentError, AgentErrorCode } from "../../protocol/index.js";

/** The agent's refusal of a request. */
export class AgentFailure extends Error {
  override readonly name = "AgentFailure";
  readonly code: AgentErrorCode;
  readonly errno: string | undefined;

  constructor(error: AgentError) {
    super(error.message);
    this.code = error.code;
    this.errno = error.errno;
  }
}
