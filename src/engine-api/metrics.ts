/** What Prometheus reads; not part of the Engine API. */
import type { RequestListener } from "node:http";
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

/** Serves `/metrics` alone, for an address that more may reach than may use the API. */
export function metricsServer(registry: Registry): RequestListener {
  return (request, response) => {
    const [path] = (request.url ?? "").split("?");
    if (path !== "/metrics" || request.method !== "GET") {
      response.writeHead(404).end("page not found\n");
      return;
    }
    registry.metrics().then(
      (text) => {
        response.writeHead(200, { "Content-Type": registry.contentType });
        response.end(text);
      },
      () => response.destroy(),
    );
  };
}
