/** `GET /containers/{id}/stats`. */
import type { Container } from "../containers/container.js";
import type { ContainerService } from "../containers/service.js";
import { statsView } from "../containers/stats-view.js";
import { sampleUsage, type UsageSample } from "../containers/usage.js";
import type { ApiRouter } from "./context.js";
import { queryBoolean } from "./query.js";
import { JsonStream } from "./response-stream.js";

/** How often a stream tells, in ms. */
const INTERVAL = 1000;

export function statsRoutes(service: ContainerService) {
  return (router: ApiRouter): void => {
    router.get("/containers/:id/stats", async (ctx) => {
      const container = service.get(ctx.params["id"] ?? "");
      if (queryBoolean(ctx, "stream", true)) {
        await stream(container, new JsonStream(ctx));
        return;
      }
      let before: UsageSample | undefined;
      if (!queryBoolean(ctx, "one-shot") && container.isRunning) {
        before = await sampleUsage(container);
        await new Promise((resolve) => setTimeout(resolve, INTERVAL));
      }
      ctx.body = statsView(container, await sampleUsage(container), before);
    });
  };
}

/** Tells every second, also while it does not run, until it is removed or the client has gone. */
async function stream(container: Container, out: JsonStream): Promise<void> {
  const over = new AbortController();
  const end = () => over.abort();
  out.signal.addEventListener("abort", end);
  void container.wait("removed", over.signal).then(end);
  let before: UsageSample | undefined;
  out.open();
  while (!over.signal.aborted && !out.signal.aborted) {
    const next = pause(INTERVAL, over.signal);
    const sample = await sampleUsage(container);
    if (!(await out.send(statsView(container, sample, before)))) break;
    before = sample;
    await next;
  }
  end();
  out.end();
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}
