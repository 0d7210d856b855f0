/** `docker commit`: a container's changes as an image. */
import type { Container } from "../containers/container.js";
import type { ContainerService } from "../containers/service.js";
import { applyChanges } from "../dockerfile/config.js";
import type { Digest } from "../images/digest.js";
import type { ImageConfig } from "../images/index.js";
import { nameOf } from "../images/local/new-image.js";
import type { ImageService } from "../images/service.js";

export interface CommitOptions {
  repo: string;
  tag: string;
  comment: string;
  author: string;
  /** The container's processes stand still meanwhile. */
  pause: boolean;
  /** Instructions as in a Dockerfile. */
  changes: string[];
  /** What is to be in the image's config in place of the container's. */
  config: ImageConfig;
  signal: AbortSignal;
}

/**
 * @throws {InvalidParameter} a name or change cannot be
 * @throws {SystemError} the layer cannot be taken; nothing changed
 */
export async function commit(
  containers: ContainerService,
  images: ImageService,
  container: Container,
  options: CommitOptions,
): Promise<Digest> {
  const { record } = container;
  const name = nameOf(options.repo, options.tag);
  const config = applyChanges(
    { ...imageConfigOf(container), ...options.config },
    options.changes,
  );
  const layer = await containers.files.layer(container, options.pause);
  const id = await images.local.make({
    parent: images.local.idOf(record.imageId),
    layer,
    config,
    author: options.author,
    comment: options.comment,
    createdBy: (record.config.Cmd ?? []).join(" "),
    name,
    signal: options.signal,
  });
  containers.tell(container, "commit", {
    comment: options.comment,
    imageID: id,
    ...(name ? { imageRef: name.toString() } : {}),
  });
  return id;
}

/** What an image keeps of a container's config. */
export function imageConfigOf(container: Container): ImageConfig {
  const own = container.record.config;
  const config: ImageConfig = {
    ...(own.User ? { User: own.User } : {}),
    ...(own.ExposedPorts ? { ExposedPorts: own.ExposedPorts } : {}),
    Env: own.Env,
    ...(own.Entrypoint ? { Entrypoint: own.Entrypoint } : {}),
    ...(own.Cmd ? { Cmd: own.Cmd } : {}),
    ...(own.Volumes ? { Volumes: own.Volumes } : {}),
    ...(own.WorkingDir ? { WorkingDir: own.WorkingDir } : {}),
    Labels: own.Labels,
    ...(own.StopSignal ? { StopSignal: own.StopSignal } : {}),
    ...(own.Shell ? { Shell: own.Shell } : {}),
    ...(own.Healthcheck ? { Healthcheck: own.Healthcheck } : {}),
    ...(own.OnBuild ? { OnBuild: own.OnBuild } : {}),
  };
  return config;
}
