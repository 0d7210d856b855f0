/** The `until` filter of the prune endpoints. */
import { InvalidParameter } from "../errors.js";
import type { Filters } from "../filters.js";

const UNITS: Record<string, number> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/**
 * The time before which something must have been made: a Go duration back from now ("1h30m"), seconds
 * since the epoch, or an RFC 3339 time.
 * @returns milliseconds since the epoch; Infinity without the filter
 * @throws {InvalidParameter} more than one, or none of these
 */
export function untilFilter(filters: Filters): number {
  const values = filters.get("until");
  if (values.length === 0) return Infinity;
  const [value = ""] = values;
  if (values.length > 1) {
    throw new InvalidParameter("more than one until filter specified");
  }
  if (/^\d+(\.\d+)?$/.test(value)) return Number(value) * 1000;
  if (/^([\d.]+(ns|us|µs|ms|s|m|h))+$/.test(value)) {
    let ms = 0;
    for (const [, count, unit] of value.matchAll(
      /([\d.]+)(ns|us|µs|ms|s|m|h)/g,
    )) {
      ms += Number(count) * (UNITS[unit ?? ""] ?? Number.NaN);
    }
    if (!Number.isNaN(ms)) return Date.now() - ms;
  }
  const time = /^\d{4}-\d\d-\d\d/.test(value) ? Date.parse(value) : Number.NaN;
  if (Number.isNaN(time)) {
    throw new InvalidParameter(`invalid filter 'until=${value}'`);
  }
  return time;
}
