/** What the engine says of itself: `/_ping`, `/version`, `/info`. */
import { readdirSync } from "node:fs";
import { arch } from "node:os";
import type { EventBus } from "../events.js";
import type { Hypervisor, HypervisorInfo } from "../hypervisor/index.js";
import type { Engine } from "../system/engine.js";
import { type HostFacts, readHost } from "../system/host.js";
import type { ApiContext, ApiRouter } from "./context.js";
import { messageOf } from "./errors.js";
import { MAX_API_VERSION, MIN_API_VERSION } from "./version.js";

export interface SystemSources {
  engine: Engine;
  events: EventBus;
  hypervisor: Hypervisor;
  /** How many containers there are, by state. */
  containers: () => { running: number; paused: number; stopped: number };
  /** How many images there are. */
  images: () => number;
}

/** What is known of the hypervisor, or why nothing is. */
type HypervisorState = { info: HypervisorInfo } | { failure: string };

export function systemRoutes(sources: SystemSources) {
  const { engine, hypervisor } = sources;
  const hypervisorState = (): Promise<HypervisorState> =>
    hypervisor.info().then(
      (info) => ({ info }),
      (error: unknown) => ({ failure: messageOf(error) }),
    );

  return (router: ApiRouter): void => {
    // Before GET, which would answer HEAD too, with the length of its body.
    router.head("/_ping", (ctx) => {
      pingHeaders(ctx);
      ctx.status = 200;
      ctx.length = 0;
    });
    router.get("/_ping", (ctx) => {
      pingHeaders(ctx);
      ctx.body = "OK";
    });

    router.get("/version", async (ctx) => {
      ctx.body = versionView(engine, readHost(), await hypervisorState());
    });

    router.get("/info", async (ctx) => {
      ctx.body = infoView({
        engine,
        host: readHost(),
        hypervisor: await hypervisorState(),
        containers: sources.containers(),
        images: sources.images(),
        eventListeners: sources.events.listeners,
      });
    });
  };
}

function pingHeaders(ctx: ApiContext): void {
  ctx.set("Builder-Version", "1");
  ctx.set("Swarm", "inactive");
  ctx.set("Cache-Control", "no-cache, no-store, must-revalidate");
  ctx.set("Pragma", "no-cache");
  ctx.set("Content-Type", "text/plain; charset=utf-8");
}

/** Go's names of architectures, which the API uses. */
function goArchitecture(): string {
  const name = arch();
  return name === "x64" ? "amd64" : name === "ia32" ? "386" : name;
}

function versionView(
  engine: Engine,
  host: HostFacts,
  hypervisor: HypervisorState,
): object {
  const common = {
    ApiVersion: MAX_API_VERSION.text,
    MinAPIVersion: MIN_API_VERSION.text,
    GitCommit: engine.commit,
    GoVersion: "N/A",
    Os: "linux",
    Arch: goArchitecture(),
    KernelVersion: host.kernel,
    BuildTime: engine.builtAt,
  };
  return {
    Platform: { Name: "hull" },
    Version: engine.version,
    ...common,
    Components: [
      {
        Name: "Engine",
        Version: engine.version,
        Details: { ...common, Experimental: "true" },
      },
      { Name: "node", Version: process.version, Details: {} },
      ...("info" in hypervisor ? componentsOf(hypervisor.info) : []),
    ],
  };
}

function componentsOf(info: HypervisorInfo): object[] {
  return [
    {
      Name: info.driver,
      Version: info.version,
      Details: { Accelerator: info.accelerator },
    },
    { Name: "guest-kernel", Version: info.kernel, Details: {} },
    { Name: "guest-agent", Version: info.agent, Details: {} },
  ];
}

interface InfoFacts {
  engine: Engine;
  host: HostFacts;
  hypervisor: HypervisorState;
  containers: { running: number; paused: number; stopped: number };
  images: number;
  eventListeners: number;
}

/** SystemInfo of the specification. */
function infoView(facts: InfoFacts): object {
  const { engine, host, hypervisor, containers } = facts;
  const known = "info" in hypervisor ? hypervisor.info : undefined;
  const driver = known?.driver ?? "qemu";
  return {
    ID: engine.id,
    Name: host.name,
    ServerVersion: engine.version,
    Containers: containers.running + containers.paused + containers.stopped,
    ContainersRunning: containers.running,
    ContainersPaused: containers.paused,
    ContainersStopped: containers.stopped,
    Images: facts.images,
    Driver: "erofs+overlay",
    DriverStatus: driverStatus(engine, hypervisor),
    DockerRootDir: engine.dataRoot,
    Plugins: {
      Volume: ["local"],
      Network: ["bridge", "null"],
      Authorization: [],
      Log: ["json-file", "local", "none"],
    },
    // Limits are set by the guest's kernel, which has no swap and knows no CPU sets of the host.
    MemoryLimit: true,
    SwapLimit: false,
    CpuCfsPeriod: true,
    CpuCfsQuota: true,
    CPUShares: true,
    CPUSet: false,
    PidsLimit: true,
    OomKillDisable: false,
    IPv4Forwarding: host.ipv4Forwarding,
    Debug: engine.debug,
    NFd: openDescriptors(),
    NGoroutines: process.getActiveResourcesInfo().length,
    SystemTime: new Date().toISOString(),
    LoggingDriver: "json-file",
    CgroupDriver: "none",
    CgroupVersion: "2",
    NEventsListener: facts.eventListeners,
    KernelVersion: host.kernel,
    OperatingSystem: host.operatingSystem,
    OSVersion: host.osVersion,
    OSType: "linux",
    Architecture: host.machine,
    NCPU: host.cpus,
    MemTotal: host.memoryBytes,
    IndexServerAddress: "https://index.docker.io/v1/",
    RegistryConfig: registryConfig(engine),
    GenericResources: [],
    HttpProxy: "",
    HttpsProxy: "",
    NoProxy: "",
    Labels: engine.labels,
    ExperimentalBuild: true,
    Runtimes: { hull: { path: driver } },
    DefaultRuntime: "hull",
    Swarm: {
      NodeID: "",
      NodeAddr: "",
      LocalNodeState: "inactive",
      ControlAvailable: false,
      Error: "",
      RemoteManagers: null,
    },
    LiveRestoreEnabled: true,
    Isolation: "",
    InitBinary: "",
    ContainerdCommit: { ID: "N/A" },
    RuncCommit: { ID: "N/A" },
    InitCommit: { ID: known?.agent ?? "N/A" },
    SecurityOptions: known
      ? [`name=micro-vm,driver=${driver},accelerator=${known.accelerator}`]
      : [],
    Warnings:
      "info" in hypervisor
        ? hypervisor.info.warnings
        : [`WARNING: no container can be started: ${hypervisor.failure}`],
  };
}

function driverStatus(
  { machine }: Engine,
  hypervisor: HypervisorState,
): [string, string][] {
  const rows: [string, string][] =
    "info" in hypervisor
      ? [
          [
            "Hypervisor",
            `${hypervisor.info.driver} ${hypervisor.info.version}`,
          ],
          [
            "Accelerator",
            `${hypervisor.info.accelerator} (${hypervisor.info.reason})`,
          ],
          ["Guest Kernel", hypervisor.info.kernel],
          ["Guest Agent", hypervisor.info.agent],
        ]
      : [["Hypervisor", `not usable: ${hypervisor.failure}`]];
  return [
    ...rows,
    [
      "Default Machine",
      `${mebibytes(machine.memoryBytes)} memory, ${machine.vcpus} vCPU, ${mebibytes(machine.diskBytes)} disk`,
    ],
  ];
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 1024 ** 2)} MiB`;
}

function registryConfig(engine: Engine): object {
  const isRange = (name: string) => /\/\d+$/.test(name);
  const insecure = engine.insecureRegistries.filter((name) => !isRange(name));
  return {
    InsecureRegistryCIDRs: [
      "::1/128",
      "127.0.0.0/8",
      ...engine.insecureRegistries.filter(isRange),
    ],
    IndexConfigs: {
      ...Object.fromEntries(
        insecure.map((name): [string, object] => [
          name,
          { Name: name, Mirrors: [], Secure: false, Official: false },
        ]),
      ),
      "docker.io": {
        Name: "docker.io",
        Mirrors: engine.registryMirrors,
        Secure: true,
        Official: true,
      },
    },
    Mirrors: engine.registryMirrors,
  };
}

function openDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}
