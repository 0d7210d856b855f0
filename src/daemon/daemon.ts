/** The daemon: every service, wired to the others and to the API. */
import { chmod, mkdir, realpath, rm } from "node:fs/promises";
import path from "node:path";
import type { Logger } from "pino";
import type { Container } from "../containers/container.js";
import { StartRehearsal } from "../containers/rehearsal.js";
import { ContainerService } from "../containers/service.js";
import { WritableDisks } from "../containers/writable-disk.js";
import { authRoutes } from "../engine-api/auth.js";
import { checkpointRoutes } from "../engine-api/checkpoints.js";
import { containerRoutes } from "../engine-api/containers.js";
import { fileRoutes } from "../engine-api/files.js";
import { diskUsageRoutes } from "../engine-api/disk-usage.js";
import { execRoutes } from "../engine-api/exec.js";
import { Builder } from "../builder/builder.js";
import { buildRoutes } from "../engine-api/build.js";
import { imageTransferRoutes } from "../engine-api/image-transfer.js";
import { imageRoutes } from "../engine-api/images.js";
import { eventRoutes } from "../engine-api/events.js";
import { metricsRoutes, metricsServer } from "../engine-api/metrics.js";
import { networkRoutes } from "../engine-api/networks.js";
import { pluginRoutes } from "../engine-api/plugins.js";
import { startTraceRoutes } from "../engine-api/start-trace.js";
import { statsRoutes } from "../engine-api/stats.js";
import { systemRoutes } from "../engine-api/system.js";
import { createApi } from "../engine-api/server.js";
import { volumeRoutes } from "../engine-api/volumes.js";
import { EventBus } from "../events.js";
import type { Hypervisor } from "../hypervisor/index.js";
import { QemuHypervisor } from "../hypervisor/qemu/driver.js";
import { containerMetrics } from "../metrics/container-metrics.js";
import { EngineMetrics } from "../metrics/engine-metrics.js";
import { ImageService } from "../images/service.js";
import { Networks } from "../networks/service.js";
import { writeState } from "../state-file.js";
import { type Engine, engineId } from "../system/engine.js";
import { Volumes } from "../volumes/index.js";
import { type Config, ConfigError } from "./config.js";
import { type BuildInfo, PRODUCTS } from "./installation.js";
import { removeHalfWritten } from "./leftovers.js";
import { Listeners } from "./listeners.js";
import { type Lock, lockDataRoot } from "./lock.js";

/** How long requests that run may go on when the daemon ends. */
const GRACE_MS = 3_000;
/** Longest exec root: the paths of the machines' sockets have a limit of 107 bytes. */
const MAX_EXEC_ROOT = 64;

/** Certificates of registries, one folder a registry; where Docker looks too. */
const CERTIFICATE_FOLDERS = ["/etc/hull/certs.d", "/etc/docker/certs.d"];

export class Daemon {
  readonly #log: Logger;
  readonly #closers: (() => Promise<void>)[] = [];

  /**
   * Starts everything, or nothing.
   * @throws {ConfigError} a setting that the host cannot meet
   * @throws {HullError} what is needed is not there, or another daemon has the data root
   */
  static async start(
    config: Config,
    build: BuildInfo,
    log: Logger,
  ): Promise<Daemon> {
    const daemon = new Daemon(log);
    try {
      await daemon.#start(config, build);
      return daemon;
    } catch (error) {
      await daemon.stop();
      throw error;
    }
  }

  private constructor(log: Logger) {
    this.#log = log;
  }

  /** Stops serving and lets go of everything; containers go on running. Never throws. */
  async stop(): Promise<void> {
    for (const close of this.#closers.splice(0).reverse()) {
      try {
        await close();
      } catch (error) {
        this.#log.error({ err: error }, "could not shut down cleanly");
      }
    }
  }

  async #start(config: Config, build: BuildInfo): Promise<void> {
    const log = this.#log;
    const { dataRoot, execRoot } = await makeRoots(config);
    const lock: Lock = lockDataRoot(dataRoot);
    this.#closers.push(async () => lock.release());
    const halfWritten = await removeHalfWritten(dataRoot);
    if (halfWritten > 0) {
      log.warn({ halfWritten }, "removed records that were not written whole");
    }
    await this.#writePidFile(config.pidfile);

    const engine: Engine = {
      id: await engineId(dataRoot, log),
      ...build,
      dataRoot,
      labels: config.labels,
      debug: config.debug,
      insecureRegistries: config["insecure-registries"],
      registryMirrors: config["registry-mirrors"],
      machine: {
        memoryBytes: config.memory,
        vcpus: config.cpus,
        diskBytes: config["disk-size"],
        kernels: Object.keys(config.kernels),
      },
    };
    const events = new EventBus();
    const networks = await Networks.open({
      directory: path.join(dataRoot, "networks"),
      driver: config["network-mode"],
      bridge: config.bridge,
      bridgeAddress: config.bip,
      mtu: config.mtu,
      dns: config.dns,
      dnsSearch: config["dns-search"],
      dnsOptions: config["dns-opts"],
      events,
      log,
    });
    this.#closers.push(() => networks.close());

    const disks = new WritableDisks(dataRoot);
    const hypervisor = new QemuHypervisor({
      kernel: config.kernel,
      kernelParameters: config["kernel-parameters"],
      kernels: config.kernels,
      initramfs: config.initramfs,
      accelerator: config.accel,
      stateDirectory: dataRoot,
      runDirectory: path.join(execRoot, "trial"),
      machineRoot: path.join(execRoot, "m"),
      taps: networks,
      templates: config.templates === "on",
      warm: {
        machines: config.warm,
        zygote: config.zygote === "on",
        rehearsal: new StartRehearsal({
          image: PRODUCTS.rehearsal,
          disks,
          diskBytes: config["disk-size"],
        }),
      },
      jail: {
        programs: PRODUCTS.jail,
        unconfined: config["unsafe-unconfined-machines"],
        firstUid: config["first-machine-uid"],
        cgroupParent: config["cgroup-parent"],
      },
      log,
    });
    this.#closers.push(() => hypervisor.close());
    // The trial boot may take seconds; whoever needs its outcome waits for it.
    void reportHypervisor(hypervisor, log);
    const images = await ImageService.open({
      dataRoot,
      events,
      log,
      mkfsErofs: [path.join(PRODUCTS.tools, "mkfs.erofs"), "mkfs.erofs"],
      registry: {
        mirrors: config["registry-mirrors"],
        insecure: config["insecure-registries"],
        certificateFolders: CERTIFICATE_FOLDERS,
      },
      download: { concurrency: config["max-concurrent-downloads"] },
      limits: {
        bytes: config["max-layer-size"],
        entries: config["max-layer-entries"],
      },
    });
    this.#closers.push(() => images.close());

    const volumes = await Volumes.open({
      directory: path.join(dataRoot, "volumes"),
      shareServer: PRODUCTS.shareServer,
      events,
      log,
    });

    const metrics: EngineMetrics = new EngineMetrics({
      version: build.version,
      states: () => containers.all().map(({ record }) => record.state.status),
      warmMachines: () => hypervisor.warmMachines,
      zygotes: () => hypervisor.zygotes,
    });
    const containers: ContainerService = new ContainerService({
      dataRoot,
      execRoot,
      disks,
      images,
      hypervisor,
      networks,
      volumes,
      events,
      log,
      defaults: engine.machine,
      startObserver: metrics,
    });
    containerMetrics(metrics.registry, () => containers.all());
    images.useContainers(containers);
    volumes.useContainers(containers);
    await containers.load();
    // Only now it is known what is still in use.
    await images.releaseUnused();
    this.#closers.push(() => containers.close());
    hypervisor.expect({ ...engine.machine }).catch(() => undefined);

    const listeners = new Listeners(log);
    await listeners.open(
      config,
      createApi({
        log,
        serverVersion: build.version,
        observer: (request) => metrics.request(request),
        groups: [
          systemRoutes({
            engine,
            events,
            hypervisor,
            containers: () => countStates(containers.all()),
            images: () => images.count,
          }),
          eventRoutes(events),
          authRoutes(images),
          diskUsageRoutes(containers, images, volumes),
          containerRoutes(containers),
          fileRoutes(containers),
          checkpointRoutes(containers),
          statsRoutes(containers),
          execRoutes(containers),
          imageTransferRoutes(images, containers),
          buildRoutes(
            await Builder.open({
              containers,
              images,
              directory: path.join(dataRoot, "build"),
            }),
            images.buildCache,
          ),
          imageRoutes(images),
          networkRoutes(networks, containers),
          volumeRoutes(volumes),
          startTraceRoutes(containers),
          metricsRoutes(metrics.registry),
          pluginRoutes,
        ],
      }),
    );
    this.#closers.push(() => listeners.close(GRACE_MS));
    if (config["metrics-addr"] !== undefined) {
      await listeners.openMetrics(
        config["metrics-addr"],
        metricsServer(metrics.registry),
      );
    }
    log.info(
      {
        version: build.version,
        commit: build.commit,
        dataRoot,
        execRoot,
        engine: engine.id,
      },
      "hulld is ready",
    );
  }

  async #writePidFile(file: string | undefined): Promise<void> {
    if (file === undefined) return;
    await writeState(file, `${process.pid}\n`, {
      mode: 0o644,
      durable: false,
    });
    this.#closers.push(() => rm(file, { force: true }));
  }
}

function countStates(containers: readonly Container[]) {
  const count = (status: string) =>
    containers.filter(({ record }) => record.state.status === status).length;
  const running = count("running");
  const paused = count("paused");
  return { running, paused, stopped: containers.length - running - paused };
}

async function reportHypervisor(
  hypervisor: Hypervisor,
  log: Logger,
): Promise<void> {
  try {
    const { driver, version, accelerator, reason, kernel, agent, warnings } =
      await hypervisor.info();
    log.info(
      { driver, version, accelerator, reason, kernel, agent },
      "machines can run",
    );
    for (const warning of warnings) log.warn(warning.replace(/^WARNING: /, ""));
  } catch (error) {
    log.error({ err: error }, "no container can be started");
  }
}

async function makeRoots(
  config: Config,
): Promise<{ dataRoot: string; execRoot: string }> {
  const dataRoot = await makeRoot(config, "data-root");
  const execRoot = await makeRoot(config, "exec-root");
  if (Buffer.byteLength(execRoot) > MAX_EXEC_ROOT) {
    throw new ConfigError(
      `invalid value for --exec-root: ${execRoot} is longer than ${MAX_EXEC_ROOT} bytes, too long for the paths of sockets in it`,
    );
  }
  return { dataRoot, execRoot };
}

/** Makes a folder that others may pass through but not list, and gives its real path. */
async function makeRoot(
  config: Config,
  name: "data-root" | "exec-root",
): Promise<string> {
  const directory = config[name];
  try {
    const made = await mkdir(directory, { recursive: true });
    if (made !== undefined) await chmod(directory, 0o711);
    return await realpath(directory);
  } catch (error) {
    throw new ConfigError(
      `invalid value for --${name}: ${(error as Error).message}`,
    );
  }
}
