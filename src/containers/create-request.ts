/**
 * What a user may ask of a new container: the body of `POST /containers/create` (ContainerConfig,
 * HostConfig, NetworkingConfig of the Engine API), checked. Unknown fields are ignored, as Docker does;
 * known ones of a wrong type are refused by name.
 */
import { z } from "zod";
import { mountSchema } from "./mounts/specification.js";
import { endpointSettingsSchema } from "./network-requests.js";

/** Docker's clients send `null` for "not given". */
const optional = <T extends z.ZodType>(schema: T) =>
  schema
    .nullish()
    .transform((value) => value ?? undefined)
    .optional();
const text = optional(z.string());
const flag = optional(z.boolean());
const integer = optional(z.int());
const strings = optional(z.array(z.string()));
const labels = optional(z.record(z.string(), z.string()));
/** Command lines may be a single string, which then is one argument (Go's strslice). */
const argv = optional(
  z.union([z.array(z.string()), z.string().transform((one) => [one])]),
);
const emptyObjects = optional(z.record(z.string(), z.looseObject({})));
const ulimit = z.object({
  Name: z.string(),
  Soft: z.int(),
  Hard: z.int(),
});

export const restartPolicySchema = z.object({
  Name: z
    .string()
    .nullish()
    .transform((name) => name ?? ""),
  MaximumRetryCount: z
    .int()
    .nullish()
    .transform((n) => n ?? 0),
});

const healthcheck = z.object({
  Test: strings,
  Interval: integer,
  Timeout: integer,
  Retries: integer,
  StartPeriod: integer,
  StartInterval: integer,
});

export const hostConfigSchema = z.looseObject({
  Binds: strings,
  NetworkMode: text,
  PortBindings: optional(
    z.record(
      z.string(),
      optional(z.array(z.object({ HostIp: text, HostPort: text }))),
    ),
  ),
  PublishAllPorts: flag,
  RestartPolicy: optional(restartPolicySchema),
  AutoRemove: flag,
  LogConfig: optional(
    z.object({
      Type: text,
      Config: optional(z.record(z.string(), z.string())),
    }),
  ),
  VolumesFrom: strings,
  Mounts: optional(z.array(mountSchema)),
  CapAdd: strings,
  CapDrop: strings,
  CgroupnsMode: text,
  Devices: optional(z.array(z.unknown())),
  DeviceRequests: optional(z.array(z.unknown())),
  Dns: strings,
  DnsOptions: strings,
  DnsSearch: strings,
  ExtraHosts: strings,
  GroupAdd: strings,
  IpcMode: text,
  PidMode: text,
  UTSMode: text,
  UsernsMode: text,
  Links: strings,
  OomScoreAdj: integer,
  OomKillDisable: flag,
  Privileged: flag,
  ReadonlyRootfs: flag,
  SecurityOpt: strings,
  StorageOpt: optional(z.record(z.string(), z.string())),
  Tmpfs: optional(z.record(z.string(), z.string())),
  ShmSize: integer,
  Sysctls: optional(z.record(z.string(), z.string())),
  Runtime: text,
  Ulimits: optional(z.array(ulimit)),
  Memory: integer,
  MemorySwap: integer,
  MemoryReservation: integer,
  // The CLI sends -1 for "not given".
  MemorySwappiness: optional(
    z.int().transform((percent) => (percent === -1 ? undefined : percent)),
  ),
  NanoCpus: integer,
  CpuShares: integer,
  CpuPeriod: integer,
  CpuQuota: integer,
  CpusetCpus: text,
  CpusetMems: text,
  BlkioWeight: integer,
  BlkioWeightDevice: optional(z.array(z.unknown())),
  BlkioDeviceReadBps: optional(z.array(z.unknown())),
  BlkioDeviceWriteBps: optional(z.array(z.unknown())),
  BlkioDeviceReadIOps: optional(z.array(z.unknown())),
  BlkioDeviceWriteIOps: optional(z.array(z.unknown())),
  CpuRealtimePeriod: integer,
  CpuRealtimeRuntime: integer,
  DeviceCgroupRules: strings,
  KernelMemoryTCP: integer,
  CgroupParent: text,
  Isolation: text,
  VolumeDriver: text,
  PidsLimit: integer,
  Init: flag,
  MaskedPaths: strings,
  ReadonlyPaths: strings,
  ConsoleSize: optional(z.array(z.int().min(0)).length(2)),
});

const networkingConfigSchema = z.object({
  EndpointsConfig: optional(z.record(z.string(), endpointSettingsSchema)),
});

/** The body of `POST /containers/create`. */
export const createRequestSchema = z.object({
  Hostname: text,
  Domainname: text,
  User: text,
  AttachStdin: flag,
  AttachStdout: flag,
  AttachStderr: flag,
  ExposedPorts: emptyObjects,
  Tty: flag,
  OpenStdin: flag,
  StdinOnce: flag,
  Env: strings,
  Cmd: argv,
  Healthcheck: optional(healthcheck),
  Image: text,
  Volumes: emptyObjects,
  WorkingDir: text,
  Entrypoint: argv,
  NetworkDisabled: flag,
  MacAddress: text,
  Labels: labels,
  StopSignal: text,
  StopTimeout: integer,
  Shell: strings,
  HostConfig: optional(hostConfigSchema),
  NetworkingConfig: optional(networkingConfigSchema),
});

export type CreateRequest = z.output<typeof createRequestSchema>;
export type HostConfig = z.output<typeof hostConfigSchema>;
export type NetworkingConfig = z.output<typeof networkingConfigSchema>;
export type RestartPolicy = z.output<typeof restartPolicySchema>;

/** The body of `POST /containers/{id}/exec`. */
export const execRequestSchema = z.object({
  AttachStdin: flag,
  AttachStdout: flag,
  AttachStderr: flag,
  DetachKeys: text,
  Tty: flag,
  Env: strings,
  Cmd: argv,
  Privileged: flag,
  User: text,
  WorkingDir: text,
  ConsoleSize: optional(z.array(z.int().min(0)).length(2)),
});
export type ExecRequest = z.output<typeof execRequestSchema>;
