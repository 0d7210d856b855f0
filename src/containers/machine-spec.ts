/**
 * From a container's record to what its machine and the agent in it are told. Pure: what it returns
 * depends on the arguments only.
 */
import { randomBytes } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import {
  INIT_PROCESS,
  SETUP_DEFAULTS,
  SPAWN_DEFAULTS,
  type Limits,
  type MountSetup,
  type Setup,
  type ShareSetup,
  type Spawn,
} from "../../protocol/index.js";
import { interfacesOf } from "./attach-networks.js";
import { capabilitiesOf } from "./capabilities.js";
import type { ExecRequest, HostConfig } from "./create-request.js";
import type { MachineSize } from "../hypervisor/index.js";
import { depth } from "./mounts/mount-point.js";
import { hostnameFile, networkFiles } from "./network-files.js";
import type { ContainerRecord } from "./record.js";

const MiB = 1024 * 1024;
/** What the guest's kernel and agent need beside the container's own memory limit. */
const GUEST_OVERHEAD = 64 * MiB;
const DEFAULT_PATH =
  "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_CPU_PERIOD = 100_000;

/** The daemon's defaults for what a user did not ask for. */
export interface MachineDefaults {
  /** Memory of a machine whose container has no limit, in bytes. */
  memoryBytes: number;
  vcpus: number;
  /** Size of a container's writable disk, in bytes. */
  diskBytes: number;
  /** Names of the guest kernels that a container may ask for. */
  kernels?: readonly string[];
}

/** By this label a container asks for another guest kernel. */
export const KERNEL_LABEL = "org.hull.kernel";

/** What a container's machine is like. */
export function machineSize(
  { config, hostConfig }: ContainerRecord,
  defaults: MachineDefaults,
): MachineSize {
  const kernel = config.Labels[KERNEL_LABEL];
  return {
    memoryBytes: machineMemory(hostConfig, defaults),
    vcpus: machineCpus(hostConfig, defaults),
    ...(kernel && { kernel }),
  };
}

/** The machine's memory: the container's limit and the guest's own needs on top. */
export function machineMemory(
  host: HostConfig,
  defaults: MachineDefaults,
): number {
  return host.Memory ? host.Memory + GUEST_OVERHEAD : defaults.memoryBytes;
}

/** As many vCPUs as --cpus needs; the exact share is the cgroup's business. */
export function machineCpus(
  host: HostConfig,
  defaults: MachineDefaults,
): number {
  if (host.NanoCpus) return Math.ceil(host.NanoCpus / 1e9);
  if (host.CpuQuota && host.CpuQuota > 0) {
    return Math.ceil(host.CpuQuota / (host.CpuPeriod || DEFAULT_CPU_PERIOD));
  }
  return defaults.vcpus;
}

/** Of the host's, for a guest. */
export function freshEntropy(): string {
  return randomBytes(64).toString("base64");
}

/**
 * Says no more than it must: an emulated guest takes its time to read.
 * @param shares the binds and volumes, as the host serves them
 * @param seeded whether the guest has entropy of its own
 */
export function setupOf(
  record: ContainerRecord,
  shares: readonly ShareSetup[],
  seeded = false,
): Setup {
  const { config, hostConfig: host } = record;
  const privileged = host.Privileged ?? false;
  return {
    time: Date.now(),
    ...(seeded ? {} : { entropy: freshEntropy() }),
    hostname: config.Hostname,
    network: {
      interfaces: interfacesOf(record),
    },
    files: [
      hostnameFile(record),
      ...networkFiles(record),
      // Where the user has mounted something, that is what the container sees.
    ].filter((file) => !shares.some(({ target }) => target === file.path)),
    ...withoutDefaults(
      {
        domainname: config.Domainname,
        // A step of a build shall find, and leave, the image's own.
        machineId: record.temporary ? "" : record.id.slice(0, 32),
        rootfs: {
          ...SETUP_DEFAULTS.rootfs,
          readonly: host.ReadonlyRootfs ?? false,
        },
        mounts: [...tmpfsMounts(host), ...shares].sort(
          (a, b) => depth(a.target) - depth(b.target),
        ),
        limits: limitsOf(host),
        sysctls: host.Sysctls ?? {},
        shmSize: host.ShmSize || SETUP_DEFAULTS.shmSize,
        privileged,
        maskedPaths: privileged ? [] : (host.MaskedPaths ?? undefined),
        readonlyPaths: privileged ? [] : (host.ReadonlyPaths ?? undefined),
      },
      SETUP_DEFAULTS,
    ),
  };
}

/** The container's own process. */
export function initSpawn(record: ContainerRecord): Spawn {
  const { config, hostConfig: host } = record;
  return {
    process: INIT_PROCESS,
    args: record.argv,
    env: environment(config.Env, config.Hostname, config.Tty),
    ...(config.Tty ? { tty: terminalSize(host.ConsoleSize) } : {}),
    ...withoutDefaults(
      {
        cwd: config.WorkingDir || "/",
        user: config.User,
        groups: host.GroupAdd ?? [],
        stdin: config.OpenStdin,
        ...privileges(host, false),
        init: host.Init ?? false,
      },
      SPAWN_DEFAULTS,
    ),
  };
}

/** What a message has to say: that which is otherwise than the guest takes it to be. */
function withoutDefaults<Fields extends object>(
  fields: Fields,
  defaults: { readonly [Field in keyof Fields]?: unknown },
): { [Field in keyof Fields]?: Exclude<Fields[Field], undefined> } {
  const different = Object.entries(fields).filter(
    ([name, value]) =>
      value !== undefined &&
      !isDeepStrictEqual(value, defaults[name as keyof Fields]),
  );
  return Object.fromEntries(different) as typeof fields;
}

/**
 * A process beside the container's own (`docker exec`). All is said: its machine may have been started, or saved, with
 * an agent that knows no defaults.
 */
export function execSpawn(
  record: ContainerRecord,
  process: number,
  request: ExecRequest,
): Spawn {
  const { config, hostConfig: host } = record;
  const tty = request.Tty ?? false;
  return {
    process,
    args: request.Cmd ?? [],
    env: mergeEnv(
      environment(config.Env, config.Hostname, tty),
      request.Env ?? [],
    ),
    cwd: request.WorkingDir || config.WorkingDir || "/",
    user: request.User || config.User,
    groups: host.GroupAdd ?? [],
    ...(tty ? { tty: terminalSize(request.ConsoleSize) } : {}),
    stdin: request.AttachStdin ?? false,
    ...privileges(host, request.Privileged ?? false),
  };
}

function privileges(host: HostConfig, privileged: boolean) {
  return {
    capabilities: capabilitiesOf(privileged ? { Privileged: true } : host),
    noNewPrivileges: (host.SecurityOpt ?? []).some((option) =>
      /^no-new-privileges([:=]true)?$/.test(option),
    ),
    rlimits: (host.Ulimits ?? []).map((limit) => ({
      name: limit.Name,
      soft: limit.Soft,
      hard: limit.Hard,
    })),
    oomScoreAdj: host.OomScoreAdj ?? 0,
  };
}

/** Docker's ConsoleSize is [height, width]; 0 means not known yet (a resize follows). */
function terminalSize(size: number[] | undefined) {
  return { rows: size?.[0] || 24, columns: size?.[1] || 80 };
}

function environment(own: string[], hostname: string, tty: boolean): string[] {
  const base = [DEFAULT_PATH, `HOSTNAME=${hostname}`];
  if (tty) base.push("TERM=xterm");
  return mergeEnv(base, own);
}

/** Later values win and keep the place of the first; a bare "KEY" takes the variable away. */
export function mergeEnv(base: string[], over: string[]): string[] {
  const merged = new Map<string, string>();
  for (const entry of [...base, ...over]) {
    const equals = entry.indexOf("=");
    if (equals < 0) merged.delete(entry);
    else merged.set(entry.slice(0, equals), entry);
  }
  return [...merged.values()];
}

export function limitsOf(host: HostConfig): Limits {
  const limits: Limits = {};
  if (host.Memory) limits.memoryBytes = host.Memory;
  if (host.MemorySwap) limits.memorySwapBytes = host.MemorySwap;
  if (host.MemoryReservation) limits.memoryLowBytes = host.MemoryReservation;
  if (host.NanoCpus) {
    limits.cpuPeriodUs = DEFAULT_CPU_PERIOD;
    limits.cpuQuotaUs = Math.round((host.NanoCpus * DEFAULT_CPU_PERIOD) / 1e9);
  } else if (host.CpuQuota && host.CpuQuota > 0) {
    limits.cpuPeriodUs = host.CpuPeriod || DEFAULT_CPU_PERIOD;
    limits.cpuQuotaUs = host.CpuQuota;
  }
  if (host.CpuShares) {
    // cgroup v1 shares 2–262144 onto v2 weight 1–10000, as runc maps them.
    const shares = Math.min(Math.max(host.CpuShares, 2), 262144);
    limits.cpuWeight = 1 + Math.floor(((shares - 2) * 9999) / 262142);
  }
  if (host.PidsLimit && host.PidsLimit > 0) limits.pids = host.PidsLimit;
  return limits;
}

export function hasTmpfs(host: HostConfig): boolean {
  return tmpfsMounts(host).length > 0;
}

function tmpfsMounts(host: HostConfig): MountSetup[] {
  const mounts: MountSetup[] = Object.entries(host.Tmpfs ?? {}).map(
    ([target, options]) => ({
      type: "tmpfs",
      target,
      options: ["noexec", "nosuid", "nodev", ...options.split(",")].filter(
        (option) => option !== "",
      ),
    }),
  );
  for (const mount of host.Mounts ?? []) {
    if (mount.Type !== "tmpfs") continue;
    const { SizeBytes, Mode } = (mount["TmpfsOptions"] ?? {}) as {
      SizeBytes?: number;
      Mode?: number;
    };
    const options = ["noexec", "nosuid", "nodev"];
    if (SizeBytes) options.push(`size=${SizeBytes}`);
    if (Mode) options.push(`mode=${Mode.toString(8)}`);
    mounts.push({ type: "tmpfs", target: mount.Target ?? "", options });
  }
  return mounts;
}
