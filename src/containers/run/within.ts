/** Waiting for a guest, which may never answer. */
import { setTimeout as delay } from "node:timers/promises";

/** Whether a promise settles within so many ms. */
export async function within(
  promise: Promise<unknown>,
  ms: number,
): Promise<boolean> {
  if (ms === Infinity) {
    await promise;
    return true;
  }
  const timer = new AbortController();
  const late = Symbol("late");
  try {
    const first = await Promise.race([
      promise,
      delay(ms, late, { signal: timer.signal }).catch(() => late),
    ]);
    return first !== late;
  } finally {
    timer.abort();
  }
}
