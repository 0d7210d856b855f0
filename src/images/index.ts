/** What the other services and the API know of images. */
import type { Disk } from "../hypervisor/index.js";

/** The part of an OCI image config a container is made from (image-spec config.md). */
export interface ImageConfig {
  User?: string;
  ExposedPorts?: Record<string, object>;
  Env?: string[];
  Entrypoint?: string[];
  Cmd?: string[];
  Volumes?: Record<string, object>;
  WorkingDir?: string;
  Labels?: Record<string, string>;
  StopSignal?: string;
  Shell?: string[];
  Healthcheck?: {
    Test?: string[];
    Interval?: number;
    Timeout?: number;
    StartPeriod?: number;
    StartInterval?: number;
    Retries?: number;
  };
  OnBuild?: string[];
}

/** An image as a container sees it. */
export interface Image {
  /** "sha256:…" of the image config: Docker's image ID. */
  id: string;
  /** References that name it now, e.g. "busybox:latest" as Docker shortens it. */
  repoTags: string[];
  repoDigests: string[];
  config: ImageConfig;
  architecture: string;
  os: string;
}

/** What the container service needs of the image service. */
export interface ImageSource {
  /**
   * @param reference a name, tag, digest, ID or ID prefix, as the user gave it
   * @throws {NotFound} "No such image: …" in Docker's words
   */
  get(reference: string): Promise<Image>;
  /**
   * The image's read-only root disk: one EROFS whose data lies in the layers' own files.
   * The image is kept from `rmi` while a container uses it: see {@link ImageUsage}.
   */
  disk(imageId: string): Promise<Disk>;
}

/** Asked by `rmi` and `prune`; answered by the container service, handed over at start-up. */
export interface ImageUsage {
  /** The containers made from the image, stopped ones included. */
  containersOf(imageId: string): { id: string; running: boolean }[];
}
