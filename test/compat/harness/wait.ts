/** Waiting for what happens on its own time. */

/** Resolves after `ms` milliseconds. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Calls `attempt` until it does not throw, and returns what it returned.
 * @throws its last error when the time is up
 */
export async function eventually<T>(
  attempt: () => T | Promise<T>,
  options: { timeout?: number; interval?: number; what?: string } = {},
): Promise<T> {
  const end = Date.now() + (options.timeout ?? 15_000);
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (Date.now() >= end) {
        if (options.what === undefined) throw error;
        throw new Error(`in vain waited until ${options.what}`, {
          cause: error,
        });
      }
    }
    await sleep(options.interval ?? 50);
  }
}
