/** Reading query parameters by the Engine's rules. Of a repeated parameter the first one counts. */
import { z } from "zod";
import { InvalidParameter } from "../errors.js";
import { Filters } from "../filters.js";
import type { ApiContext } from "./context.js";

/** Every value of a parameter, in order. */
export function queryStrings(ctx: ApiContext, name: string): string[] {
  const value = ctx.query[name];
  if (value === undefined) return [];
  return Array.isArray(value) ? value : [value];
}

/** A parameter's value, undefined when it is not there. */
export function queryString(ctx: ApiContext, name: string): string | undefined {
  return queryStrings(ctx, name)[0];
}

/** Empty, "0", "no", "false" and "none" are false, anything else is true. */
export function queryBoolean(
  ctx: ApiContext,
  name: string,
  fallback = false,
): boolean {
  const value = queryString(ctx, name);
  if (value === undefined) return fallback;
  return !["", "0", "no", "false", "none"].includes(value.trim().toLowerCase());
}

/**
 * A whole number; undefined when it is missing or empty.
 * @throws {InvalidParameter} it is not a number
 */
export function queryInteger(
  ctx: ApiContext,
  name: string,
): number | undefined {
  const value = queryString(ctx, name);
  if (value === undefined || value === "") return undefined;
  const number = Number(value);
  if (!/^[+-]?\d+$/.test(value) || !Number.isSafeInteger(number)) {
    throw new InvalidParameter(
      `invalid value for ${name}: ${JSON.stringify(value)} is not a whole number`,
    );
  }
  return number;
}

/**
 * A point in time: seconds since the epoch with an optional fraction, or an RFC 3339 time.
 * @returns nanoseconds since the epoch, undefined when missing, empty or "0"
 * @throws {InvalidParameter} it is neither
 */
export function queryInstant(
  ctx: ApiContext,
  name: string,
): bigint | undefined {
  const value = queryString(ctx, name);
  if (value === undefined || value === "" || value === "0") return undefined;
  const fraction = (digits: string | undefined): bigint =>
    BigInt((digits ?? "").slice(0, 9).padEnd(9, "0"));
  const seconds = /^(-?\d{1,12})(?:\.(\d+))?$/.exec(value);
  if (seconds !== null) {
    return BigInt(seconds[1] ?? 0) * 1_000_000_000n + fraction(seconds[2]);
  }
  // Date.parse knows milliseconds only.
  const time = /^(\d{4}-\d\d-\d\d.*?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?$/.exec(
    value,
  );
  const whole = time === null ? NaN : Date.parse(`${time[1]}${time[3] ?? ""}`);
  if (Number.isNaN(whole)) {
    throw new InvalidParameter(
      `invalid value for ${name}: failed to parse value as time or duration: ${JSON.stringify(value)}`,
    );
  }
  return BigInt(whole) * 1_000_000n + fraction(time?.[2]);
}

/** As {@link queryInstant}, as a number: exact to 256 ns. */
export function queryTime(ctx: ApiContext, name: string): number | undefined {
  const instant = queryInstant(ctx, name);
  return instant === undefined ? undefined : Number(instant);
}

const FiltersSchema = z.record(
  z.string(),
  z.union([z.array(z.string()), z.record(z.string(), z.boolean())]),
);

/**
 * The `filters` parameter, in either of its forms: `{"name":["value"]}` and `{"name":{"value":true}}`.
 * @param accepted the names the endpoint knows; left out, any name passes
 * @throws {InvalidParameter} "invalid filter …"
 */
export function queryFilters(
  ctx: ApiContext,
  accepted?: readonly string[],
): Filters {
  const text = queryString(ctx, "filters");
  if (text === undefined || text === "") return new Filters();
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new InvalidParameter("invalid filter");
  }
  if (json === null) return new Filters();
  const parsed = FiltersSchema.safeParse(json);
  if (!parsed.success) throw new InvalidParameter("invalid filter");
  const filters = new Filters(
    Object.entries(parsed.data).map(([name, values]): [string, string[]] => [
      name,
      Array.isArray(values)
        ? values
        : Object.keys(values).filter((value) => values[value]),
    ]),
  );
  if (accepted !== undefined) filters.validate(accepted);
  return filters;
}
