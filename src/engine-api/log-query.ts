/** The query of `GET /containers/{id}/logs`. */
import type { ReadOptions } from "../containers/log/reader.js";
import { InvalidParameter } from "../errors.js";
import type { ApiContext } from "./context.js";
import { queryBoolean, queryInstant, queryString } from "./query.js";

export interface LogQuery {
  read: ReadOptions;
  stdout: boolean;
  stderr: boolean;
  timestamps: boolean;
  details: boolean;
}

/** @throws {InvalidParameter} no stream is asked for, or a value cannot be */
export function logQuery(ctx: ApiContext): LogQuery {
  const stdout = queryBoolean(ctx, "stdout");
  const stderr = queryBoolean(ctx, "stderr");
  if (!stdout && !stderr) {
    throw new InvalidParameter(
      "Bad parameters: you must choose at least one stream",
    );
  }
  const read: ReadOptions = { follow: queryBoolean(ctx, "follow") };
  const tail = queryString(ctx, "tail") || "all";
  if (tail !== "all") {
    if (!/^-?\d{1,15}$/.test(tail)) {
      throw new InvalidParameter(
        `invalid value for tail: ${JSON.stringify(tail)} is neither a number nor "all"`,
      );
    }
    if (Number(tail) >= 0) read.tail = Number(tail);
  }
  const since = queryInstant(ctx, "since");
  if (since !== undefined) read.since = recordTime(since);
  const until = queryInstant(ctx, "until");
  if (until !== undefined) read.until = recordTime(until);
  return {
    read,
    stdout,
    stderr,
    timestamps: queryBoolean(ctx, "timestamps"),
    details: queryBoolean(ctx, "details"),
  };
}

/** Nanoseconds since the epoch in the form of a log record's time. */
function recordTime(nanos: bigint): string {
  const second = 1_000_000_000n;
  // Rounded down also before 1970.
  const rest = ((nanos % second) + second) % second;
  const whole = new Date(Number((nanos - rest) / second) * 1000);
  return `${whole.toISOString().slice(0, 19)}.${String(rest).padStart(9, "0")}Z`;
}
