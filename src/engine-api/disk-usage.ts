/** `GET /system/df`: what takes how much space. */
import { allocatedBytes } from "../containers/size.js";
import type { Container } from "../containers/container.js";
import type { ContainerService } from "../containers/service.js";
import { summaryView } from "../containers/views.js";
import { InvalidParameter } from "../errors.js";
import { Filters } from "../filters.js";
import type { ImageService } from "../images/service.js";
import type { Volumes } from "../volumes/index.js";
import type { ApiRouter } from "./context.js";
import { queryStrings } from "./query.js";
import { volumeView } from "./volumes.js";

const TYPES = ["container", "image", "volume", "build-cache"];

export function diskUsageRoutes(
  containers: ContainerService,
  images: ImageService,
  volumes: Volumes,
) {
  return (router: ApiRouter): void => {
    router.get("/system/df", async (ctx) => {
      const types = queryStrings(ctx, "type");
      for (const type of types) {
        if (!TYPES.includes(type)) {
          throw new InvalidParameter(`unknown object type: ${type}`);
        }
      }
      const wants = (type: string) =>
        types.length === 0 || types.includes(type);
      const summaries = await images.list(new Filters(), {
        sharedSize: true,
        countContainers: true,
      });
      const sizes = new Map(summaries.map(({ Id, Size }) => [Id, Size]));
      ctx.body = {
        LayersSize: wants("image") ? images.layersSize : 0,
        Images: wants("image") ? summaries : null,
        Containers: wants("container")
          ? await Promise.all(
              containers.all().map((container) => usageOf(container, sizes)),
            )
          : null,
        Volumes: wants("volume")
          ? await Promise.all(
              volumes.list().map(async (volume) => ({
                ...volumeView(volume),
                UsageData: {
                  Size: await volumes.size(volume),
                  RefCount: volumes.references(volume.name),
                },
              })),
            )
          : null,
        BuildCache: wants("build-cache")
          ? await images.buildCache.records()
          : null,
      };
    });
  };
}

/** A container's summary with the space its writable disk takes on the host. */
async function usageOf(
  container: Container,
  imageSizes: ReadonlyMap<string, number>,
): Promise<object> {
  const written = await allocatedBytes(container.writableDisk);
  const image = imageSizes.get(container.record.imageId) ?? 0;
  return {
    ...summaryView(container),
    SizeRw: written,
    SizeRootFs: image + written,
  };
}
