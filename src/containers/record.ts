/** What is kept on disk of a container; everything else can be found out again. */
import type { MachineRecord } from "../hypervisor/index.js";
import type {
  AttachRequest,
  Endpoint,
  PublishedPort,
} from "../networks/index.js";
import type { HostConfig } from "./create-request.js";
import type { ImageConfig } from "../images/index.js";
import type { MountPoint } from "./mounts/mount-point.js";

/** Raised when the form of the record changes; an older daemon refuses a newer record. */
export const RECORD_VERSION = 1;

/** ContainerConfig of the Engine API after the image's own config was merged in. */
export interface ContainerConfig {
  Hostname: string;
  Domainname: string;
  User: string;
  AttachStdin: boolean;
  AttachStdout: boolean;
  AttachStderr: boolean;
  ExposedPorts?: Record<string, object>;
  Tty: boolean;
  OpenStdin: boolean;
  StdinOnce: boolean;
  Env: string[];
  Cmd: string[] | null;
  Healthcheck?: ImageConfig["Healthcheck"];
  Image: string;
  Volumes: Record<string, object> | null;
  WorkingDir: string;
  Entrypoint: string[] | null;
  NetworkDisabled?: boolean;
  MacAddress?: string;
  OnBuild: string[] | null;
  Labels: Record<string, string>;
  StopSignal?: string;
  StopTimeout?: number;
  Shell?: string[];
}

/** ContainerState.Status of the Engine API. */
export type Status =
  | "created"
  | "running"
  | "paused"
  | "restarting"
  | "removing"
  | "exited"
  | "dead";

/** Health of the Engine API: what the probes of a healthcheck found. */
export interface Health {
  status: "starting" | "healthy" | "unhealthy";
  failingStreak: number;
  /** The last results, the newest last. */
  log: HealthResult[];
}

export interface HealthResult {
  /** RFC 3339 with nanoseconds. */
  start: string;
  end: string;
  /** 0 is healthy; -1 means that the probe could not be started or took too long. */
  exitCode: number;
  output: string;
}

export interface ContainerState {
  status: Status;
  /** PID of the machine's process on the host while it runs, else 0. */
  pid: number;
  exitCode: number;
  error: string;
  oomKilled: boolean;
  /** RFC 3339 with nanoseconds; the zero time of Go where it never happened. */
  startedAt: string;
  finishedAt: string;
  /** The user ended it by hand, so `unless-stopped` and `always` leave it alone. */
  manuallyStopped: boolean;
  /** Present once a container with a healthcheck was started. */
  health?: Health;
}

/** What it asks of a network. */
export interface NetworkRequest extends AttachRequest {
  /** The network's ID, as far as it is known. */
  networkId?: string;
  /** Which network has the default gateway: the one with the highest. */
  gwPriority?: number;
  /** Kept and shown. */
  driverOpts?: Record<string, string>;
}

export interface ContainerRecord {
  version: typeof RECORD_VERSION;
  id: string;
  /** Without a leading slash. */
  name: string;
  created: string;
  /** "sha256:…" */
  imageId: string;
  config: ContainerConfig;
  hostConfig: HostConfig;
  /** What it asks of the networks it is attached to when it runs. */
  networks: NetworkRequest[];
  /** argv of its process: entrypoint and command joined. */
  argv: string[];
  state: ContainerState;
  restartCount: number;
  /** What is needed to find its machine again; present from before the start until torn down. */
  machine?: MachineRecord;
  /** The run that is under way, from before its process starts. */
  run?: {
    startedAt: string;
    /** Where its output began, when it goes on from a checkpoint. */
    offsets?: { stdout: number; stderr: number };
  };
  endpoints: Endpoint[];
  /** What is published of it while it runs. */
  ports?: PublishedPort[];
  /** Binds and volumes; a record of before there were any has none. */
  mounts?: MountPoint[];
  /** The machine's taps, by the places of its NICs; present while there is a machine. */
  taps?: string[];
  /** Made by a step of a build: it goes when the daemon is gone that made it. */
  temporary?: true;
  /** Size of its writable disk, in bytes. */
  diskBytes: number;
}

/** Go's zero time, which Docker shows for "never". */
export const NEVER = "0001-01-01T00:00:00Z";
