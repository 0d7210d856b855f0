/** What a client may ask of a build (`POST /build`), checked. */
import type { HostConfig } from "../containers/create-request.js";
import type { Reference } from "../images/reference.js";
import type { Credentials } from "../images/registry/credentials.js";

/** The largest Dockerfile, in bytes. */
export const MAX_DOCKERFILE = 4 * 1024 * 1024;

export interface BuildOptions {
  dockerfile: string;
  names: Reference[];
  target: string;
  buildArgs: ReadonlyMap<string, string>;
  labels: ReadonlyMap<string, string>;
  /** Steps are done also when the same was done before. */
  noCache: boolean;
  /** Base images are asked for at their registries. */
  pull: boolean;
  /** Intermediate containers go when a step has ended well. */
  remove: boolean;
  /** And also when it failed. */
  forceRemove: boolean;
  platform: string;
  /** Limits and network of RUN's containers. */
  host: HostConfig;
  credentials: (domain: string) => Credentials;
  /** A line of the client's output. */
  say: (line: object) => void;
  signal: AbortSignal;
}
