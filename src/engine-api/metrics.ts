/** What Prometheus reads; not part of the Engine API. */
import type { Registry } from "prom-client";
import type { ApiRouter } from "./context.js";

export function metricsRoutes(registry: Registry) {
  return (router: ApiRouter): void => {
    router.get("/metrics", async (ctx) => {
      ctx.set("Content-Type", registry.contentType);
      ctx.body = await registry.metrics();
    });
  };
}
