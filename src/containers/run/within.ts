/** Waiting for a guest, which may never answer. */
import { SystemError } from "../../errors.js";

/** How long a guest may take for what it is asked, where it is no more than a few steps, in ms. */
export const ANSWER_LIMIT = 60_000;

/** The same for a change of a container that runs: a stop of it waits for that, in ms. */
export const CHANGE_LIMIT = 20_000;

/** Whether a promise settles within so many ms. */
export async function within(
  promise: Promise<unknown>,
  ms: number,
): Promise<boolean> {
  if (ms === Infinity) {
    await promise;
    return true;
  }
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, ms, false);
  });
  try {
    return await Promise.race([promise.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Resolves when all have settled, when none of those left has for so many ms, or after `most` ms. A busy host
 * takes its time for a hundred guests; one that hangs is not waited for.
 */
export async function whileTheySettle(
  work: readonly Promise<unknown>[],
  ms: number,
  most: number,
): Promise<void> {
  const end = performance.now() + most;
  const left = new Set<Promise<unknown>>();
  for (const one of work) {
    const settled: Promise<unknown> = one
      .catch(() => undefined)
      .finally(() => left.delete(settled));
    left.add(settled);
  }
  while (left.size > 0) {
    const rest = Math.min(ms, end - performance.now());
    if (rest <= 0 || !(await within(Promise.race(left), rest))) return;
  }
}

/**
 * Passes the guest's answer on.
 * @throws {SystemError} it did not come within so many ms
 */
export async function answerWithin<T>(
  request: Promise<T>,
  operation: string,
  ms: number,
): Promise<T> {
  if (await within(request, ms)) return request;
  throw new SystemError(
    `the container's machine has not answered to ${operation} within ${ms / 1000} s`,
  );
}
