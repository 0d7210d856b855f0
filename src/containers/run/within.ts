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
