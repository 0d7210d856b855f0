/** Images as the Engine API shows them. */
import type { Digest } from "./digest.js";
import type { ImageConfig } from "./index.js";
import type { ConfigFile } from "./manifest.js";
import type { Reference } from "./reference.js";

/** ImageSummary of the specification. */
export interface ImageSummary {
  Id: string;
  ParentId: string;
  RepoTags: string[];
  RepoDigests: string[];
  Created: number;
  Size: number;
  SharedSize: number;
  Labels: Record<string, string> | null;
  Containers: number;
}

/** ImageInspect of the specification. */
export interface ImageInspect {
  Id: string;
  RepoTags: string[];
  RepoDigests: string[];
  Parent: string;
  Comment: string;
  Created?: string;
  DockerVersion: string;
  Author: string;
  Config: Record<string, unknown> | null;
  Architecture: string;
  Variant?: string;
  Os: string;
  OsVersion?: string;
  Size: number;
  GraphDriver: { Name: string; Data: Record<string, string> };
  RootFS: { Type: "layers"; Layers?: string[] };
  Metadata: { LastTagTime: string };
}

/** HistoryResponseItem of the specification. */
export interface HistoryItem {
  Id: string;
  Created: number;
  CreatedBy: string;
  Tags: string[];
  Size: number;
  Comment: string;
}

/** ImageDeleteResponseItem of the specification. */
export type DeletedItem = { Untagged: string } | { Deleted: string };

/** When there is no time: Go's zero value. */
const NO_TIME = "0001-01-01T00:00:00Z";

/** An image with all that its views need. */
export interface ImageFacts {
  id: Digest;
  config: ConfigFile;
  references: Reference[];
  /** Content bytes of each layer, lowest first. */
  layerSizes: number[];
  lastTagTime: string | undefined;
  /** Files of the root disk, for the curious. */
  rootfs: string[];
}

/** Tags and digests as `docker images` shows them. */
export function repoTags(references: readonly Reference[]): string[] {
  return references
    .filter(({ digest }) => digest === undefined)
    .map(({ familiar }) => familiar);
}

export function repoDigests(references: readonly Reference[]): string[] {
  return references
    .filter(({ digest }) => digest !== undefined)
    .map(({ familiar }) => familiar);
}

/** The creation time in milliseconds since the epoch; 0 when unknown. */
export function createdMs(config: ConfigFile): number {
  const time = Date.parse(config.created ?? NO_TIME);
  return Number.isNaN(time) ? 0 : time;
}

export function inspectView(facts: ImageFacts): ImageInspect {
  const { config, references } = facts;
  return {
    Id: facts.id,
    RepoTags: repoTags(references),
    RepoDigests: repoDigests(references),
    Parent: "",
    Comment: config.comment ?? "",
    ...(config.created == null ? {} : { Created: config.created }),
    DockerVersion: config.docker_version ?? "",
    Author: config.author ?? "",
    Config: config.config === null ? null : configView(config),
    Architecture: config.architecture,
    ...(config.variant === "" ? {} : { Variant: config.variant }),
    Os: config.os,
    ...(config["os.version"] == null
      ? {}
      : { OsVersion: config["os.version"] }),
    Size: sum(facts.layerSizes),
    GraphDriver: {
      Name: "erofs",
      Data: { RootDisk: facts.rootfs.join(":") },
    },
    RootFS: {
      Type: "layers",
      ...(config.rootfs.diff_ids.length === 0
        ? {}
        : { Layers: config.rootfs.diff_ids }),
    },
    Metadata: { LastTagTime: facts.lastTagTime ?? NO_TIME },
  };
}

function configView(config: ConfigFile): Record<string, unknown> {
  const own = config.config;
  return {
    // Fields of a container that image configs once had too; older clients read them.
    Hostname: "",
    Domainname: "",
    User: own?.User ?? "",
    AttachStdin: false,
    AttachStdout: false,
    AttachStderr: false,
    Tty: false,
    OpenStdin: false,
    StdinOnce: false,
    ...present({ ExposedPorts: own?.ExposedPorts }),
    Env: own?.Env ?? null,
    Cmd: own?.Cmd ?? null,
    ...present({
      Healthcheck: own?.Healthcheck,
      ArgsEscaped: own?.ArgsEscaped,
    }),
    Image: "",
    Volumes: own?.Volumes ?? null,
    WorkingDir: own?.WorkingDir ?? "",
    Entrypoint: own?.Entrypoint ?? null,
    OnBuild: own?.OnBuild ?? null,
    Labels: own?.Labels ?? null,
    ...present({ StopSignal: own?.StopSignal, Shell: own?.Shell }),
  };
}

/** The part of the config containers are made from, without what is null. */
export function containerConfig(config: ConfigFile): ImageConfig {
  const { Healthcheck, ...own } = config.config ?? {};
  const image = present({
    User: own.User,
    ExposedPorts: own.ExposedPorts,
    Env: own.Env,
    Entrypoint: own.Entrypoint,
    Cmd: own.Cmd,
    Volumes: own.Volumes,
    WorkingDir: own.WorkingDir,
    Labels: own.Labels,
    StopSignal: own.StopSignal,
    Shell: own.Shell,
    OnBuild: own.OnBuild,
  }) as ImageConfig;
  if (Healthcheck == null) return image;
  return { ...image, Healthcheck: present(Healthcheck) };
}

export function historyView(facts: ImageFacts): HistoryItem[] {
  const { config, layerSizes, references } = facts;
  let layer = 0;
  const items = config.history.map((entry): HistoryItem => {
    const size = entry.empty_layer === true ? 0 : (layerSizes[layer++] ?? 0);
    const created = Date.parse(entry.created ?? NO_TIME);
    return {
      Id: "<missing>",
      Created: Math.floor(
        (Number.isNaN(created) ? Date.parse(NO_TIME) : created) / 1000,
      ),
      CreatedBy: entry.created_by ?? "",
      Tags: [],
      Size: size,
      Comment: entry.comment ?? "",
    };
  });
  items.reverse();
  const [newest] = items;
  if (newest !== undefined) {
    newest.Id = facts.id;
    const tags = repoTags(references);
    newest.Tags = tags;
  }
  return items;
}

export function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

type Present<T> = { [Key in keyof T]?: NonNullable<T[Key]> };

/** The fields that are neither null nor undefined. */
function present<T extends object>(fields: T): Present<T> {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value != null),
  ) as Present<T>;
}
