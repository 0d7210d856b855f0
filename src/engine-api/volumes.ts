/**
 * The endpoints of volumes, as of an engine that has none. Making one is answered by missing.ts.
 */
import { NotFound } from "../errors.js";
import type { ApiRouter } from "./context.js";
import { queryBoolean, queryFilters } from "./query.js";

const LIST_FILTERS = ["dangling", "driver", "label", "name"];
const PRUNE_FILTERS = ["all", "label", "label!"];

/** Registers /volumes. */
export function volumeRoutes(router: ApiRouter): void {
  router.get("/volumes", (ctx) => {
    queryFilters(ctx, LIST_FILTERS);
    ctx.body = { Volumes: [], Warnings: null };
  });

  router.get("/volumes/:name", (ctx) => {
    throw new NotFound(`get ${ctx.params["name"]}: no such volume`);
  });

  router.delete("/volumes/:name", (ctx) => {
    if (queryBoolean(ctx, "force")) {
      ctx.status = 204;
      return;
    }
    throw new NotFound(`get ${ctx.params["name"]}: no such volume`);
  });

  router.post("/volumes/prune", (ctx) => {
    queryFilters(ctx, PRUNE_FILTERS);
    ctx.body = { VolumesDeleted: [], SpaceReclaimed: 0 };
  });
}
