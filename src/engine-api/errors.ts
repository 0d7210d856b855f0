/** The one place where errors become HTTP answers. */
import type { Middleware } from "koa";
import type { Logger } from "pino";
import { ZodError } from "zod";
import {
  Conflict,
  Forbidden,
  InvalidParameter,
  NotFound,
  NotImplemented,
  NotModified,
  Unauthorized,
  Unavailable,
} from "../errors.js";

/** An answer no class of src/errors.ts stands for, such as 413: HTTP's own business. */
export class HttpFailure extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

const STATUS_OF_CLASS = [
  [InvalidParameter, 400],
  [Unauthorized, 401],
  [Forbidden, 403],
  [NotFound, 404],
  [Conflict, 409],
  [NotModified, 304],
  [NotImplemented, 501],
  [Unavailable, 503],
] as const;

/** The HTTP status an error stands for; 500 for all that nobody foresaw. */
export function statusOf(error: unknown): number {
  for (const [type, status] of STATUS_OF_CLASS) {
    if (error instanceof type) return status;
  }
  if (error instanceof HttpFailure) return error.status;
  if (error instanceof ZodError) return 400;
  // koa's and the router's own errors (http-errors), such as a path with a broken escape.
  if (error instanceof Error && "expose" in error && error.expose === true) {
    const status: unknown = "status" in error ? error.status : undefined;
    if (typeof status === "number") return status;
  }
  return 500;
}

/** What the client reads. */
export function messageOf(error: unknown): string {
  if (error instanceof ZodError) return describeZodError(error);
  if (error instanceof Error && error.message !== "") return error.message;
  return error instanceof Error ? error.name : String(error);
}

/** Names the field of the request body that is wrong, and how. */
function describeZodError(error: ZodError): string {
  const [issue] = error.issues;
  if (issue === undefined) return "invalid request";
  const field = issue.path.map(String).join(".");
  const problem = issue.message.replace(/^Invalid input: /, "");
  return field === ""
    ? `invalid request body: ${problem}`
    : `invalid value for ${field}: ${problem}`;
}

/** Answers whatever the later layers throw, as the Engine answers: `{"message": …}`. */
export function errorHandler(log: Logger): Middleware {
  return async (ctx, next) => {
    try {
      await next();
    } catch (error) {
      const status = statusOf(error);
      const request = `${ctx.method} ${ctx.path}`;
      if (status >= 500 && status !== 501) {
        log.error({ err: error, request }, "request failed");
      } else {
        log.debug({ request, status, reason: messageOf(error) }, "refused");
      }
      if (ctx.respond === false || ctx.headerSent) {
        // The answer has begun: all that is left is to end it.
        if (!ctx.res.writableEnded) ctx.res.end();
        return;
      }
      ctx.status = status;
      if (status === 304) {
        ctx.body = null;
        return;
      }
      ctx.remove("Content-Length");
      ctx.set("Content-Type", "application/json");
      ctx.body = JSON.stringify({ message: messageOf(error) }) + "\n";
      if (status === 408 || status === 413) ctx.set("Connection", "close");
    }
  };
}
