/** What a row of samples says. */

/** The value below which a fraction `p` of the samples lies (nearest rank). */
export function percentile(samples: readonly number[], p: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const value = sorted[Math.max(0, Math.ceil(p * sorted.length) - 1)];
  if (value === undefined) {
    throw new RangeError("no samples");
  }
  return value;
}

export function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const half = sorted.length / 2;
  const upper = sorted[Math.floor(half)];
  const lower = sorted[Math.ceil(half) - 1];
  if (upper === undefined || lower === undefined) {
    throw new RangeError("no samples");
  }
  return (upper + lower) / 2;
}

/** Median and 90th percentile: how every figure is given. */
export interface Summary {
  median: number;
  p90: number;
  count: number;
}

export function summarize(samples: readonly number[]): Summary {
  return {
    median: median(samples),
    p90: percentile(samples, 0.9),
    count: samples.length,
  };
}
