/** What a healthcheck is: the user's and the image's joined, checked, with Docker's defaults. */
import { InvalidParameter } from "../errors.js";
import type { ImageConfig } from "../images/index.js";

/** HealthConfig of the Engine API; durations are nanoseconds, 0 or absent means the default. */
export type Healthcheck = NonNullable<ImageConfig["Healthcheck"]>;

/** A check as it is done. */
export interface Check {
  argv: string[];
  /** Milliseconds. */
  interval: number;
  timeout: number;
  startPeriod: number;
  startInterval: number;
  /** How many failures in a row make it unhealthy. */
  retries: number;
}

const NANOSECONDS = 1e6;
const DEFAULT_INTERVAL = 30_000;
const DEFAULT_TIMEOUT = 30_000;
const DEFAULT_START_INTERVAL = 5_000;
const DEFAULT_RETRIES = 3;
const DEFAULT_SHELL = ["/bin/sh", "-c"];

/** What the user left open is the image's (moby daemon/commit.go merge). */
export function mergeHealthcheck(
  own: Healthcheck | undefined,
  image: Healthcheck | undefined,
): Healthcheck | undefined {
  if (!own || !image) return own ?? image;
  return {
    Test: own.Test?.length ? own.Test : (image.Test ?? []),
    Interval: own.Interval || image.Interval || 0,
    Timeout: own.Timeout || image.Timeout || 0,
    StartPeriod: own.StartPeriod || image.StartPeriod || 0,
    StartInterval: own.StartInterval || image.StartInterval || 0,
    Retries: own.Retries || image.Retries || 0,
  };
}

/** @throws {InvalidParameter} in Docker's words */
export function checkHealthcheck(config: Healthcheck | undefined): void {
  if (!config) return;
  for (const name of [
    "Interval",
    "Timeout",
    "StartPeriod",
    "StartInterval",
  ] as const) {
    const nanoseconds = config[name] ?? 0;
    if (nanoseconds !== 0 && nanoseconds < NANOSECONDS) {
      throw new InvalidParameter(
        `${name} in Healthcheck cannot be less than 1ms`,
      );
    }
  }
  if ((config.Retries ?? 0) < 0) {
    throw new InvalidParameter("Retries in Healthcheck cannot be negative");
  }
}

/**
 * The check to do; undefined when there is none, or it is switched off.
 * @param shell the image's SHELL, for a check in shell form
 */
export function checkOf(
  config: Healthcheck | undefined,
  shell: string[] | undefined,
): Check | undefined {
  const [kind, ...words] = config?.Test ?? [];
  if (!config || (kind !== "CMD" && kind !== "CMD-SHELL")) return undefined;
  const ms = (nanoseconds: number | undefined, fallback: number) =>
    nanoseconds ? nanoseconds / NANOSECONDS : fallback;
  return {
    argv:
      kind === "CMD"
        ? words
        : [...(shell?.length ? shell : DEFAULT_SHELL), ...words],
    interval: ms(config.Interval, DEFAULT_INTERVAL),
    timeout: ms(config.Timeout, DEFAULT_TIMEOUT),
    startPeriod: ms(config.StartPeriod, 0),
    startInterval: ms(config.StartInterval, DEFAULT_START_INTERVAL),
    retries: config.Retries || DEFAULT_RETRIES,
  };
}

/** Milliseconds as Go prints a duration, e.g. "500ms", "1.5s", "1m30s". */
export function goDuration(ms: number): string {
  if (ms === 0) return "0s";
  if (ms < 1000) return `${ms}ms`;
  const hours = Math.floor(ms / 3_600_000);
  const minutes = Math.floor(ms / 60_000) % 60;
  const seconds = (ms % 60_000) / 1000;
  if (hours > 0) return `${hours}h${minutes}m${seconds}s`;
  return minutes > 0 ? `${minutes}m${seconds}s` : `${seconds}s`;
}
