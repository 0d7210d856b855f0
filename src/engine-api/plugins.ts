/** The endpoints of plugins, as of an engine that has none installed. Installing one is in missing.ts. */
import { NotFound } from "../errors.js";
import type { ApiContext, ApiRouter } from "./context.js";
import { queryFilters } from "./query.js";

const LIST_FILTERS = ["capability", "enabled"];

/** Registers /plugins. */
export function pluginRoutes(router: ApiRouter): void {
  router.get("/plugins", (ctx) => {
    queryFilters(ctx, LIST_FILTERS);
    ctx.body = [];
  });

  const unknown = (ctx: ApiContext) => {
    throw new NotFound(`plugin "${String(ctx.params["name"])}" not found`);
  };
  // `docker inspect NAME` asks here last.
  router.get("/plugins/*name/json", unknown);
  router.delete("/plugins/*name", unknown);
  for (const action of ["enable", "disable", "upgrade", "push", "set"]) {
    router.post(`/plugins/*name/${action}`, unknown);
  }
}
