/** How hard a test tries: a short form in CI, a long one in `make soak`. */

/** Whether this is the long form. */
export const SOAK = (process.env["HULL_SOAK"] ?? "") !== "";

/** What the short form and the long form of a test take for a number. */
export function effort(short: number, long: number): number {
  return SOAK ? long : short;
}

/** The seed of this run's random moments: $HULL_SEED, or always the same one. */
export const SEED = Number(process.env["HULL_SEED"] ?? 20_251_125) >>> 0;

/** Repeatable random numbers from 0 to 1 (mulberry32, of the public domain). */
export function random(seed: number = SEED): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
