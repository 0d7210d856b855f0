/** Containers as the API shows them: ContainerInspectResponse and ContainerSummary. */
import { dnsNames } from "../networks/dns-names.js";
import { namesOf } from "./attach-networks.js";
import {
  NEVER,
  type ContainerRecord,
  type Health,
  type NetworkRequest,
} from "./record.js";
import { portsSummary, portsView } from "./ports-view.js";
import { mountPointView } from "./mounts/mount-point.js";
import type { Container } from "./container.js";

/** `GET /containers/{id}/json`. */
export function inspectView(container: Container, execIds: string[]) {
  const { record } = container;
  const { state, config, hostConfig } = record;
  const { status } = state;
  return {
    Id: record.id,
    Created: record.created,
    Path: record.argv[0] ?? "",
    Args: record.argv.slice(1),
    State: {
      Status: status,
      Running:
        status === "running" || status === "paused" || status === "restarting",
      Paused: status === "paused",
      Restarting: status === "restarting",
      OOMKilled: state.oomKilled,
      Dead: status === "dead",
      Pid: state.pid,
      ExitCode: state.exitCode,
      Error: state.error,
      StartedAt: state.startedAt,
      FinishedAt: state.finishedAt,
      ...(state.health ? { Health: healthView(state.health) } : {}),
    },
    Image: record.imageId,
    ResolvConfPath: "",
    HostnamePath: "",
    HostsPath: "",
    LogPath: hostConfig.LogConfig?.Type === "none" ? "" : container.log.path,
    Name: `/${record.name}`,
    RestartCount: record.restartCount,
    Driver: "erofs",
    Platform: "linux",
    MountLabel: "",
    ProcessLabel: "",
    AppArmorProfile: "",
    ExecIDs: execIds.length ? execIds : null,
    HostConfig: hostConfigView(record),
    GraphDriver: {
      Name: "erofs",
      Data: { WritableDisk: container.writableDisk },
    },
    Mounts: mountsView(record),
    Config: config,
    NetworkSettings: networkSettingsView(record),
  };
}

function healthView({ status, failingStreak, log }: Health) {
  return {
    Status: status,
    FailingStreak: failingStreak,
    Log: log.map(({ start, end, exitCode, output }) => ({
      Start: start,
      End: end,
      ExitCode: exitCode,
      Output: output,
    })),
  };
}

/** `GET /containers/json`, one element. */
export function summaryView(container: Container) {
  const { record } = container;
  return {
    Id: record.id,
    Names: [`/${record.name}`],
    Image: record.config.Image,
    ImageID: record.imageId,
    Command: commandLine(record.argv),
    Created: Math.floor(Date.parse(record.created) / 1000),
    Ports: portsSummary(record),
    Labels: record.config.Labels,
    State: record.state.status,
    Status: statusText(record),
    HostConfig: { NetworkMode: record.hostConfig.NetworkMode ?? "default" },
    NetworkSettings: { Networks: networksView(record) },
    Mounts: mountsView(record),
  };
}

/** Arguments with anything but plain characters in single quotes, as Docker joins them. */
function commandLine(argv: string[]): string {
  return argv
    .map((argument) =>
      /[\s'"\\]/.test(argument) || argument === ""
        ? `'${argument.replaceAll("'", `'\\''`)}'`
        : argument,
    )
    .join(" ");
}

/** What `docker ps` shows under STATUS (moby container/state.go String). */
export function statusText(record: ContainerRecord): string {
  const { state } = record;
  const since = (time: string) => humanDuration(Date.now() - Date.parse(time));
  switch (state.status) {
    case "paused":
      return `Up ${since(state.startedAt)} (Paused)`;
    case "running":
      return `Up ${since(state.startedAt)}${healthText(state.health)}`;
    case "restarting":
      return `Restarting (${state.exitCode}) ${since(state.finishedAt)} ago`;
    case "removing":
      return "Removal In Progress";
    case "dead":
      return "Dead";
    case "created":
      return "Created";
    case "exited":
      return state.finishedAt === NEVER
        ? ""
        : `Exited (${state.exitCode}) ${since(state.finishedAt)} ago`;
  }
}

function healthText(health: Health | undefined): string {
  if (!health) return "";
  return health.status === "starting"
    ? " (health: starting)"
    : ` (${health.status})`;
}

/** As docker/go-units HumanDuration words it; `ms` in milliseconds. */
export function humanDuration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 1) return "Less than a second";
  if (seconds === 1) return "1 second";
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 1) return "About a minute";
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.floor(seconds / 3600 + 0.5);
  if (hours === 1) return "About an hour";
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(hours / 24 / 365)} years`;
}

function hostConfigView(record: ContainerRecord) {
  return {
    Binds: null,
    ContainerIDFile: "",
    PortBindings: {},
    AutoRemove: false,
    VolumeDriver: "",
    VolumesFrom: null,
    ConsoleSize: [0, 0],
    CapAdd: null,
    CapDrop: null,
    CgroupnsMode: "private",
    Dns: [],
    DnsOptions: [],
    DnsSearch: [],
    ExtraHosts: null,
    GroupAdd: null,
    IpcMode: "private",
    Cgroup: "",
    Links: null,
    OomScoreAdj: 0,
    PidMode: "",
    Privileged: false,
    PublishAllPorts: false,
    ReadonlyRootfs: false,
    SecurityOpt: null,
    UTSMode: "",
    UsernsMode: "",
    ShmSize: 67108864,
    Runtime: "hull",
    Isolation: "",
    CpuShares: 0,
    Memory: 0,
    NanoCpus: 0,
    CgroupParent: "",
    CpuPeriod: 0,
    CpuQuota: 0,
    CpusetCpus: "",
    CpusetMems: "",
    Devices: [],
    DeviceRequests: null,
    MemoryReservation: 0,
    MemorySwap: 0,
    MemorySwappiness: null,
    OomKillDisable: null,
    PidsLimit: null,
    Ulimits: [],
    MaskedPaths: null,
    ReadonlyPaths: null,
    ...given(record.hostConfig),
  };
}

/** The fields that were given, without those that were left out by `undefined`. */
function given<T extends object>(object: T): Partial<T> {
  return Object.fromEntries(
    Object.entries(object).filter(([, value]) => value !== undefined),
  ) as Partial<T>;
}

function mountsView(record: ContainerRecord) {
  const tmpfs = (record.hostConfig.Mounts ?? [])
    .filter((mount) => mount.Type === "tmpfs")
    .map((mount) => ({
      Type: "tmpfs",
      Source: "",
      Destination: mount.Target ?? "",
      Mode: "",
      RW: true,
      Propagation: "",
    }));
  return [...(record.mounts ?? []).map(mountPointView), ...tmpfs];
}

function networkSettingsView(record: ContainerRecord) {
  // These older fields are the default network's.
  const first = record.endpoints.find(({ network }) => network === "bridge");
  return {
    Bridge: "",
    SandboxID: "",
    SandboxKey: "",
    Ports: portsView(record),
    HairpinMode: false,
    LinkLocalIPv6Address: "",
    LinkLocalIPv6PrefixLen: 0,
    SecondaryIPAddresses: null,
    SecondaryIPv6Addresses: null,
    EndpointID: first?.endpointId ?? "",
    Gateway: first?.gateway ?? "",
    GlobalIPv6Address: first?.ipv6Address ?? "",
    GlobalIPv6PrefixLen: first?.ipv6PrefixLen ?? 0,
    IPAddress: first?.ipAddress ?? "",
    IPPrefixLen: first?.ipPrefixLen ?? 0,
    IPv6Gateway: first?.ipv6Gateway ?? "",
    MacAddress: first?.macAddress ?? "",
    Networks: networksView(record),
  };
}

function networksView(record: ContainerRecord) {
  return Object.fromEntries(
    record.networks.map((request) => {
      const { network, aliases } = request;
      const name = network === "default" ? "bridge" : network;
      const endpoint = record.endpoints.find((end) => end.network === name);
      const named = !["bridge", "none"].includes(name);
      return [
        name,
        {
          IPAMConfig: ipamConfig(request),
          Links: linksView(request),
          Aliases: aliases ?? null,
          MacAddress: endpoint?.macAddress ?? "",
          DriverOpts: request.driverOpts ?? null,
          GwPriority: request.gwPriority ?? 0,
          NetworkID: endpoint?.networkId ?? request.networkId ?? "",
          EndpointID: endpoint?.endpointId ?? "",
          Gateway: endpoint?.gateway ?? "",
          IPAddress: endpoint?.ipAddress ?? "",
          IPPrefixLen: endpoint?.ipPrefixLen ?? 0,
          IPv6Gateway: endpoint?.ipv6Gateway ?? "",
          GlobalIPv6Address: endpoint?.ipv6Address ?? "",
          GlobalIPv6PrefixLen: endpoint?.ipv6PrefixLen ?? 0,
          DNSNames: named ? dnsNames(namesOf(record), aliases) : null,
        },
      ];
    }),
  );
}

function ipamConfig({ ipv4Address, ipv6Address }: NetworkRequest) {
  if (!ipv4Address && !ipv6Address) return null;
  return {
    ...(ipv4Address && { IPv4Address: ipv4Address }),
    ...(ipv6Address && { IPv6Address: ipv6Address }),
  };
}

function linksView({ links }: NetworkRequest): string[] | null {
  if (!links) return null;
  return Object.entries(links).map(([name, other]) => `${other}:${name}`);
}
