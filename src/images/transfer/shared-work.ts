/**
 * Work that several clients may want at once, such as fetching the same layer: done once, watched by
 * all, given up when nobody wants it any more.
 */
export class SharedWork<Result, Progress> {
  readonly #running = new Map<string, Running<Result, Progress>>();

  /**
   * Joins the work of that key, or begins it.
   * @param begin does the work and tells of its progress
   * @param watch hears the progress, the latest one at once when the work had begun before
   * @throws the work's error, or the signal's reason when this client has gone
   */
  join(
    key: string,
    begin: (
      signal: AbortSignal,
      report: (progress: Progress) => void,
    ) => Promise<Result>,
    watch: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<Result> {
    signal.throwIfAborted();
    let running = this.#running.get(key);
    if (running === undefined || running.abort.signal.aborted) {
      running = this.#begin(key, begin);
    } else if (running.latest !== undefined) watch(running.latest);
    const { watchers, abort, result } = running;
    watchers.add(watch);
    return new Promise<Result>((resolve, reject) => {
      const leave = (): void => {
        signal.removeEventListener("abort", onAbort);
        watchers.delete(watch);
      };
      const onAbort = (): void => {
        leave();
        if (watchers.size === 0) abort.abort(signal.reason);
        // The last one out waits until everything is cleared away.
        const gone = (): void => reject(signal.reason as Error);
        if (watchers.size === 0) result.then(gone, gone);
        else gone();
      };
      signal.addEventListener("abort", onAbort, { once: true });
      result.then(
        (value) => {
          leave();
          resolve(value);
        },
        (error: unknown) => {
          leave();
          reject(error instanceof Error ? error : new Error(String(error)));
        },
      );
    });
  }

  #begin(
    key: string,
    begin: (
      signal: AbortSignal,
      report: (progress: Progress) => void,
    ) => Promise<Result>,
  ): Running<Result, Progress> {
    const abort = new AbortController();
    const running: Running<Result, Progress> = {
      abort,
      watchers: new Set(),
      latest: undefined,
      result: Promise.resolve().then(() =>
        begin(abort.signal, (progress) => {
          running.latest = progress;
          for (const watch of running.watchers) watch(progress);
        }),
      ),
    };
    const done = (): void => {
      if (this.#running.get(key) === running) this.#running.delete(key);
    };
    running.result.then(done, done);
    this.#running.set(key, running);
    return running;
  }
}

interface Running<Result, Progress> {
  abort: AbortController;
  watchers: Set<(progress: Progress) => void>;
  latest: Progress | undefined;
  result: Promise<Result>;
}
