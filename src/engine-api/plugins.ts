/** The endpoints of plugins, as of an engine that has none installed, on a platform that has none to install. */
import { NotFound, SystemError } from "../errors.js";
import type { ApiContext, ApiRouter } from "./context.js";
import { queryFilters } from "./query.js";

const LIST_FILTERS = ["capability", "enabled"];

/** Registers /plugins. */
export function pluginRoutes(router: ApiRouter): void {
  router.get("/plugins", (ctx) => {
    queryFilters(ctx, LIST_FILTERS);
    ctx.body = [];
  });

  const unsupported = () => {
    throw new SystemError("plugins are not supported on this platform");
  };
  router.get("/plugins/privileges", unsupported);
  router.post("/plugins/pull", unsupported);
  router.post("/plugins/create", unsupported);

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
