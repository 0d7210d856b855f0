/** What the other services and the API know of volumes. */

/** A named folder of the engine's. */
export interface Volume {
  name: string;
  driver: "local";
  /** RFC 3339. */
  createdAt: string;
  labels: Record<string, string> | null;
  /** Options of the driver, as they were given. */
  options: Record<string, string> | null;
  /** What Docker shows as its place on the host. */
  mountpoint: string;
}

/** What a user asks of a new volume: `POST /volumes/create`. */
export interface VolumeRequest {
  /** A random one when it is missing or empty. */
  name?: string | undefined;
  driver?: string | undefined;
  labels?: Record<string, string> | undefined;
  options?: Record<string, string> | undefined;
}

/** Asked before a volume is removed; answered by the container service, handed over at start-up. */
export interface VolumeUsage {
  /** IDs of the containers that have the volume among their mounts, stopped ones included. */
  containersWith(volume: string): string[];
}

/** A file or folder of the host, to be served to one machine's guest. */
export interface Export {
  /** Absolute. */
  path: string;
  /** A path inside of it, resolved so that what a guest planted there leads nowhere else; or "". */
  below: string;
  /** "tree": with all that is mounted below it; "root": not what is mounted below it. */
  readonly: "no" | "root" | "tree";
  /** What is mounted below it on the host is not to be seen. */
  nonRecursive: boolean;
}

export { Volumes, type VolumeFilter } from "./service.js";
