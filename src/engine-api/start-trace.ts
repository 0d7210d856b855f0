/** Where the time of a container's last start went; hull's own, not part of the Engine API. */
import type { ContainerService } from "../containers/service.js";
import { NotFound } from "../errors.js";
import type { ApiRouter } from "./context.js";

export function startTraceRoutes(service: ContainerService) {
  return (router: ApiRouter): void => {
    router.get("/hull/containers/:id/start-trace", async (ctx) => {
      const container = service.get(ctx.params["id"] ?? "");
      const report = await service.traces.of(container);
      if (!report) {
        throw new NotFound(
          `container ${container.record.name} has not been started yet, or its trace is lost`,
        );
      }
      ctx.body = report;
    });
  };
}
