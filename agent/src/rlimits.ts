/** Resource limits by Docker's names; the place is the number of linux/resource.h. */
import { Failure } from "./failure.js";

const RESOURCES: readonly string[] = [
  "cpu",
  "fsize",
  "data",
  "stack",
  "core",
  "rss",
  "nproc",
  "nofile",
  "memlock",
  "as",
  "locks",
  "sigpending",
  "msgqueue",
  "nice",
  "rtprio",
  "rttime",
];

/**
 * Number of the resource named "nofile" or "RLIMIT_NOFILE".
 * @throws {Failure} `invalid` for an unknown name
 */
export function resourceNumber(name: string): number {
  const short = name.toLowerCase();
  const number = RESOURCES.indexOf(
    short.startsWith("rlimit_") ? short.slice(7) : short,
  );
  if (number < 0)
    throw new Failure(
      "invalid",
      `unknown resource limit: ${JSON.stringify(name)}`,
    );
  return number;
}
