/**
 * Checkpoints of containers. They are no part of the published specification: paths and shapes are those of
 * moby's api/server/router/checkpoint, which the CLI's `docker checkpoint` speaks.
 */
import { z } from "zod";
import type { ContainerService } from "../containers/service.js";
import { readJson } from "./body.js";
import type { ApiContext, ApiRouter } from "./context.js";
import { queryString } from "./query.js";

const createSchema = z.object({
  CheckpointID: z.string().default(""),
  CheckpointDir: z.string().default(""),
  Exit: z.boolean().default(false),
});

export function checkpointRoutes(service: ContainerService) {
  const { checkpoints } = service;
  const named = (ctx: ApiContext) => service.get(ctx.params["id"] ?? "");

  return (router: ApiRouter): void => {
    router.get("/containers/:id/checkpoints", async (ctx) => {
      const names = await checkpoints.list(named(ctx), queryString(ctx, "dir"));
      ctx.body = names.map((Name) => ({ Name }));
    });

    router.post("/containers/:id/checkpoints", async (ctx) => {
      const request = await readJson(ctx, createSchema);
      const { CheckpointID: name, CheckpointDir: directory } = request;
      const place = { name, ...(directory && { directory }) };
      await checkpoints.create(named(ctx), place, request.Exit);
      ctx.status = 201;
    });

    router.delete("/containers/:id/checkpoints/:checkpoint", async (ctx) => {
      const name = ctx.params["checkpoint"] ?? "";
      const directory = queryString(ctx, "dir");
      const place = { name, ...(directory && { directory }) };
      await checkpoints.remove(named(ctx), place);
      ctx.status = 204;
    });
  };
}
