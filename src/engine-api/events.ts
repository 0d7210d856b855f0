/** `GET /events`. */
import { InvalidParameter } from "../errors.js";
import type { EventBus } from "../events.js";
import type { ApiRouter } from "./context.js";
import { queryFilters, queryString, queryTime } from "./query.js";
import { JsonStream } from "./response-stream.js";

/** A client that is so many bytes behind is disconnected: it may not take the daemon's memory. */
const MAX_BACKLOG = 4 * 1024 * 1024;
/** Longest time a timer of node takes. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export function eventRoutes(events: EventBus) {
  return (router: ApiRouter): void => {
    router.get("/events", async (ctx) => {
      const since = queryTime(ctx, "since");
      const until = queryTime(ctx, "until");
      const filters = queryFilters(ctx);
      if (since !== undefined && until !== undefined && since > until) {
        throw new InvalidParameter(
          `\`since\` time (${queryString(ctx, "since")}) cannot be after \`until\` time (${queryString(ctx, "until")})`,
        );
      }
      const stream = new JsonStream(ctx);
      const over = new AbortController();
      // Subscribed before the past is sent, and both in one go: nothing is missed or told twice.
      const unsubscribe = events.subscribe((event) => {
        if (until !== undefined && event.timeNano > until) return;
        if (stream.backlog > MAX_BACKLOG) over.abort();
        else void stream.send(event);
      }, filters);
      try {
        stream.open();
        if (since !== undefined || until !== undefined) {
          for (const event of events.history(since ?? 0, until, filters)) {
            void stream.send(event);
          }
        }
        await ended(AbortSignal.any([stream.signal, over.signal]), until);
      } finally {
        unsubscribe();
      }
      stream.end();
    });
  };
}

/** Resolves when the signal is aborted or a time (nanoseconds since the epoch) has come. */
async function ended(
  signal: AbortSignal,
  until: number | undefined,
): Promise<void> {
  while (!signal.aborted) {
    const left = until === undefined ? MAX_TIMER_MS : until / 1e6 - Date.now();
    if (left <= 0) return;
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, Math.min(Math.ceil(left), MAX_TIMER_MS));
      signal.addEventListener("abort", done);
    });
  }
}
