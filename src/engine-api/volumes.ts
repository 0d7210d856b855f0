/** The endpoints of volumes. */
import { z } from "zod";
import { InvalidParameter, Unavailable } from "../errors.js";
import type { Filters } from "../filters.js";
import type { Volume, Volumes } from "../volumes/index.js";
import { ANONYMOUS_LABEL } from "../volumes/names.js";
import { readJson } from "./body.js";
import type { ApiRouter } from "./context.js";
import { queryBoolean, queryFilters } from "./query.js";

const LIST_FILTERS = ["dangling", "driver", "label", "name"];
const PRUNE_FILTERS = ["all", "label", "label!"];
/** From this version on a prune takes only what nobody named, unless it is told otherwise. */
const ANONYMOUS_PRUNE = "1.42";

const strings = z
  .record(z.string(), z.string())
  .nullish()
  .transform((value) => value ?? undefined);
const text = z
  .string()
  .nullish()
  .transform((value) => value ?? undefined);
const createSchema = z.object({
  Name: text,
  Driver: text,
  DriverOpts: strings,
  Labels: strings,
  ClusterVolumeSpec: z.unknown().optional(),
});

/** Registers /volumes. */
export function volumeRoutes(volumes: Volumes): (router: ApiRouter) => void {
  return (router) => {
    router.get("/volumes", (ctx) => {
      const filters = queryFilters(ctx, LIST_FILTERS);
      const dangling = filters.has("dangling")
        ? filters.boolean("dangling", false)
        : undefined;
      ctx.body = {
        Volumes: volumes
          .list()
          .filter((volume) => matches(volume, filters))
          .filter(
            ({ name }) =>
              dangling === undefined ||
              dangling === (volumes.references(name) === 0),
          )
          .map(volumeView),
        Warnings: null,
      };
    });

    router.post("/volumes/create", async (ctx) => {
      const body = await readJson(ctx, createSchema);
      if (body.ClusterVolumeSpec) {
        throw new Unavailable(
          "volume create only valid for cluster volumes, but swarm is unavailable",
        );
      }
      const volume = await volumes.create({
        name: body.Name,
        driver: body.Driver,
        options: body.DriverOpts,
        labels: body.Labels,
      });
      ctx.status = 201;
      ctx.body = volumeView(volume);
    });

    router.get("/volumes/:name", (ctx) => {
      ctx.body = volumeView(volumes.get(ctx.params["name"] ?? ""));
    });

    router.put("/volumes/:name", () => {
      throw new Unavailable(
        "volume update only valid for cluster volumes, but swarm is unavailable",
      );
    });

    router.delete("/volumes/:name", async (ctx) => {
      const name = ctx.params["name"] ?? "";
      await volumes.remove(name, queryBoolean(ctx, "force"));
      ctx.status = 204;
    });

    router.post("/volumes/prune", async (ctx) => {
      const filters = queryFilters(ctx, PRUNE_FILTERS);
      const all =
        filters.boolean("all", false) ||
        !ctx.state.version.atLeast(ANONYMOUS_PRUNE);
      const { names, bytes } = await volumes.prune(
        ({ labels }) =>
          (all || Object.hasOwn(labels ?? {}, ANONYMOUS_LABEL)) &&
          filters.matchPairs("label", labels ?? {}) &&
          !(
            filters.has("label!") && filters.matchPairs("label!", labels ?? {})
          ),
      );
      ctx.body = { VolumesDeleted: names, SpaceReclaimed: bytes };
    });
  };
}

/** @throws {InvalidParameter} a filter has an impossible value */
function matches(volume: Volume, filters: Filters): boolean {
  for (const label of filters.get("label")) {
    if (label === "") throw new InvalidParameter("invalid filter 'label='");
  }
  return (
    filters.match("name", volume.name) &&
    filters.exactMatch("driver", volume.driver) &&
    filters.matchPairs("label", volume.labels ?? {})
  );
}

/** Volume of the specification. */
export function volumeView(volume: Volume) {
  return {
    CreatedAt: volume.createdAt,
    Driver: volume.driver,
    Labels: volume.labels,
    Mountpoint: volume.mountpoint,
    Name: volume.name,
    Options: volume.options ?? {},
    Scope: "local",
  };
}
