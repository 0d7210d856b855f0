/** The container service: every operation on containers and execs, behind the API. */
import type { Logger } from "pino";
import { Conflict, inWords, InvalidParameter } from "../errors.js";
import type { EventBus } from "../events.js";
import { faultPoint } from "../fault.js";
import type { Filters } from "../filters.js";
import type { Hypervisor } from "../hypervisor/index.js";
import type { ImageSource, ImageUsage } from "../images/index.js";
import { platformWarning } from "../images/platform.js";
import type { NetworkService } from "../networks/index.js";
import type { Volumes, VolumeUsage } from "../volumes/index.js";
import { namesOf } from "./attach-networks.js";
import { Checkpoints } from "./checkpoint/index.js";
import { Connections } from "./connections.js";
import { Container } from "./container.js";
import { type Tell, teller } from "./container-events.js";
import type { CreateRequest } from "./create-request.js";
import { Execs, notRunning } from "./execs.js";
import { HealthMonitors } from "./health.js";
import { ContainerFiles } from "./files.js";
import { ContainerIndex } from "./index-of-containers.js";
import { Lifecycle } from "./lifecycle.js";
import { listContainers } from "./list.js";
import type { MachineDefaults } from "./machine-spec.js";
import { anticipateStart } from "./machine-start.js";
import { checkName, newId, randomName } from "./names.js";
import {
  removeAnonymousVolumes,
  type ResolvedMounts,
  resolveMounts,
} from "./mounts/resolve.js";
import { newRecord } from "./new-container.js";
import type { NetworkRequest } from "./record.js";
import { restoreContainers } from "./restore.js";
import { type StartObserver, StartTraces } from "./start-traces.js";
import { ContainerStore } from "./store.js";
import { allocatedBytes, type ContainerSize, sizeOf } from "./size.js";
import { within } from "./run/within.js";
import { warningsOf } from "./unsupported.js";
import { updateContainer, type UpdateRequest } from "./update.js";
import type { WritableDisks } from "./writable-disk.js";

/** How long a daemon that ends waits for machines that are being taken down, in ms. */
const CLOSE_LIMIT = 2000;

export interface ContainerServiceOptions {
  dataRoot: string;
  execRoot: string;
  disks: WritableDisks;
  images: ImageSource;
  hypervisor: Hypervisor;
  networks: NetworkService;
  volumes: Volumes;
  events: EventBus;
  log: Logger;
  defaults: MachineDefaults;
  /** Is told of every start. */
  startObserver?: StartObserver;
}

export class ContainerService implements ImageUsage, VolumeUsage {
  readonly lifecycle: Lifecycle;
  readonly execs: Execs;
  readonly traces: StartTraces;
  readonly files: ContainerFiles;
  readonly connections: Connections;
  readonly checkpoints: Checkpoints;
  readonly tell: Tell;
  readonly #options: ContainerServiceOptions;
  readonly #index = new ContainerIndex();
  readonly #underWay = new Set<Promise<void>>();
  readonly #store: ContainerStore;

  constructor(options: ContainerServiceOptions) {
    this.#options = options;
    this.#store = new ContainerStore(options.dataRoot, options.log);
    this.tell = teller(options.events);
    this.execs = new Execs(this.tell);
    this.traces = new StartTraces(options.log, options.startObserver);
    this.connections = new Connections(options.networks, options.log);
    const health = new HealthMonitors({
      execs: this.execs,
      tell: this.tell,
      log: options.log,
    });
    this.lifecycle = new Lifecycle({
      ...options,
      tell: this.tell,
      execs: this.execs,
      health,
      traces: this.traces,
      underWay: this.#underWay,
      // The record says that it runs: whoever finds it, and no machine, removes it, too.
      remove: (container) => this.#remove(container, true, false),
    });
    this.checkpoints = new Checkpoints({
      tell: this.tell,
      health,
      kill: (container) => this.lifecycle.kill(container, "KILL"),
    });
    this.files = new ContainerFiles({
      ...options,
      machineRoot: this.lifecycle.machineRoot,
      tell: this.tell,
    });
  }

  /**
   * Takes over what an earlier daemon left: records, and the machines that still run.
   * To be called once, before the API serves.
   */
  async load(): Promise<void> {
    const { log, hypervisor, networks } = this.#options;
    for (const record of await this.#store.load()) {
      this.#index.add(new Container(record, this.#store, log));
    }
    await restoreContainers([...this.#index], {
      lifecycle: this.lifecycle,
      hypervisor,
      networks,
      log,
      machineRoot: this.lifecycle.machineRoot,
      remove: (container) =>
        this.#remove(
          container,
          container.record.temporary ??
            container.record.hostConfig.AutoRemove ??
            false,
        ),
    });
  }

  /** Lets go of the machines, which go on running. */
  async close(): Promise<void> {
    this.lifecycle.close();
    await this.traces.close();
    await Promise.all(
      [...this.#index].map(async (container) => {
        await container.endOffline(true);
        await container.machine?.detach();
        await container.save();
      }),
    );
    await within(Promise.all(this.#underWay), CLOSE_LIMIT);
  }

  /**
   * `POST /containers/create`.
   * @param name the name the user chose; a random one when undefined
   * @param platform what `--platform` asks of the image
   * @param temporary it goes when this daemon does, unless `keep` is called
   * @throws {NotFound} no such image, or not for that platform
   * @throws {Conflict} the name is taken
   * @throws {InvalidParameter} see `newRecord`
   */
  async create(
    request: CreateRequest,
    name: string | undefined,
    platform?: string,
    temporary = false,
  ): Promise<Container> {
    const { images, networks, volumes, defaults, log } = this.#options;
    const chosen = name ? checkName(name) : this.#freeName();
    if (!request.Image) throw new InvalidParameter("no image specified");
    networks.check(request.HostConfig?.NetworkMode || "default");
    const image = await images.get(request.Image);
    const warning = platformWarning(request.Image, image, platform);
    const id = newId();
    const record = newRecord(id, chosen, request, image, defaults);
    record.networks = record.networks.map((one) => this.#known(one));
    if (temporary) record.temporary = true;
    this.#index.reserve(chosen, id);
    let mounts: ResolvedMounts | undefined;
    try {
      mounts = await resolveMounts({
        volumes,
        request,
        volumePaths: Object.keys(record.config.Volumes ?? {}),
        mountsOf: (reference) => this.get(reference).record.mounts ?? [],
      });
      record.mounts = mounts.mounts;
      // What is wrong is told at its start.
      anticipateStart(record, this.#options).catch(() => undefined);
      await this.#store.create(id);
      faultPoint("create.folder");
      const synced = this.#store.sync();
      synced.catch(() => undefined);
      const container = new Container(record, this.#store, log);
      if (warning) container.warnings.push(warning);
      container.warnings.push(...warningsOf(record.hostConfig));
      await this.#options.disks.create(
        container.writableDisk,
        record.diskBytes,
      );
      container.blankDiskMade();
      faultPoint("create.disk");
      await Promise.all([container.save(), synced]);
      faultPoint("create.recorded");
      this.#index.add(container);
      this.tell(container, "create");
      return container;
    } catch (error) {
      this.#index.release(chosen, id);
      await this.#store.remove(id);
      await mounts?.undo();
      throw error;
    } finally {
      mounts?.release();
    }
  }

  /** Makes a temporary container one like any other. */
  async keep(container: Container): Promise<void> {
    delete container.record.temporary;
    await container.save();
  }

  /** A network as it is called, and by its ID, where it is there already. */
  #known(request: NetworkRequest): NetworkRequest {
    try {
      const network = this.#options.networks.checkRequest(request);
      return network
        ? { ...request, network: network.name, networkId: network.id }
        : request;
    } catch (error) {
      if (error instanceof InvalidParameter && hasSettings(request)) {
        const { network } = request;
        const name = network === "default" ? "bridge" : network;
        error.message = `invalid config for network ${name}: ${error.message}`;
      }
      throw error;
    }
  }

  #freeName(): string {
    for (let attempt = 0; ; attempt++) {
      const name = randomName(attempt);
      if (!this.#index.isTaken(name)) return name;
    }
  }

  /**
   * @param reference a name, ID, or unambiguous beginning of an ID
   * @throws {NotFound} no such container
   */
  get(reference: string): Container {
    return this.#index.get(reference);
  }

  /** Every container, in no order. */
  all(): Container[] {
    return [...this.#index];
  }

  /** `GET /containers/json`; see {@link listContainers}. */
  async list(options: {
    all: boolean;
    limit?: number;
    filters: Filters;
  }): Promise<Container[]> {
    const ancestors = await Promise.all(
      options.filters.get("ancestor").map((reference) =>
        this.#options.images.get(reference).then(
          (image) => image.id,
          () => "",
        ),
      ),
    );
    return listContainers(this.#index, { ...options, ancestors });
  }

  containersOf(imageId: string): { id: string; running: boolean }[] {
    return [...this.#index]
      .filter((container) => container.record.imageId === imageId)
      .map((container) => ({
        id: container.id,
        running: container.isRunning,
      }));
  }

  containersWith(volume: string): string[] {
    return [...this.#index]
      .filter(({ record }) =>
        record.mounts?.some((mount) => mount.name === volume),
      )
      .map(({ id }) => id);
  }

  /**
   * `DELETE /containers/{id}`.
   * @param withVolumes the volumes that nobody named go, too
   * @throws {Conflict} it runs and `force` is false, or is being removed already
   */
  async remove(
    container: Container,
    force: boolean,
    withVolumes = false,
  ): Promise<void> {
    const { status } = container.record.state;
    if (container.isRunning || status === "restarting") {
      if (!force) {
        throw new Conflict(
          `cannot remove container "/${container.record.name}": container is ${status}: ` +
            (status === "paused"
              ? "unpause and then stop the container before removing or force remove"
              : "stop the container before removing or force remove"),
        );
      }
      container.cancelRestart?.();
      try {
        await this.lifecycle.kill(container, "KILL");
      } catch (error) {
        // It ended by itself meanwhile.
        if (!(error instanceof Conflict)) throw error;
      }
    }
    if (container.record.state.status === "removing") {
      if (container.record.hostConfig.AutoRemove && force) {
        await container.wait("removed", new AbortController().signal);
        return;
      }
      throw new Conflict(
        `removal of container ${container.id} is already in progress`,
      );
    }
    await this.#remove(container, withVolumes);
  }

  /** @param marked the record says so first: a removal that is cut short is gone on with */
  #remove(
    container: Container,
    withVolumes: boolean,
    marked = true,
  ): Promise<void> {
    return container.exclusive(async () => {
      const { record } = container;
      if (record.state.status === "removing") return;
      if (container.isRunning) throw notRunningRemoval(container);
      const { status } = record.state;
      record.state.status = "removing";
      try {
        if (marked) await container.save();
        faultPoint("rm.marked");
        await container.letGo;
        await container.endOffline(true);
        await container.deleteFiles();
        faultPoint("rm.files-gone");
      } catch (error) {
        record.state.status = status;
        throw error;
      }
      this.#index.remove(container);
      this.execs.forget(container);
      if (withVolumes) {
        await removeAnonymousVolumes(
          record.mounts ?? [],
          this.#options.volumes,
        );
      }
      this.tell(container, "destroy");
      container.notifyRemoved();
    });
  }

  /**
   * `POST /containers/{id}/rename`.
   * @throws {Conflict} the name is taken
   * @throws {InvalidParameter} the name cannot be
   */
  async rename(container: Container, name: string): Promise<void> {
    if (!name) {
      throw new InvalidParameter("Neither old nor new names may be empty");
    }
    const allocating = <T>(work: () => T): T =>
      inWords("Error when allocating new name", work);
    const fresh = allocating(() => checkName(name));
    await container.exclusive(async () => {
      const { record } = container;
      const old = record.name;
      if (fresh === old) {
        throw new InvalidParameter(
          "Renaming a container with the same name as its current name",
        );
      }
      allocating(() => this.#index.reserve(fresh, record.id));
      record.name = fresh;
      try {
        await container.save();
      } catch (error) {
        record.name = old;
        this.#index.release(fresh, record.id);
        throw error;
      }
      faultPoint("rename.saved");
      this.#index.release(old, record.id);
      this.#options.networks.rename(namesOf(record));
      this.tell(container, "rename", { oldName: `/${old}` });
    });
  }

  /** What it takes on disk; see {@link sizeOf}. */
  size(container: Container): Promise<ContainerSize> {
    return sizeOf(container, this.#options.images);
  }

  /** `POST /containers/{id}/update`; see {@link updateContainer}. */
  async update(container: Container, request: UpdateRequest): Promise<void> {
    await updateContainer(container, request);
    this.tell(container, "update");
  }

  /**
   * `POST /containers/prune`: removes what is stopped. Filters: `until` (ms since the epoch), labels.
   * @returns IDs, and the bytes their disks took of the host
   */
  async prune(
    filters: Filters,
    until: number,
  ): Promise<{ ids: string[]; bytes: number }> {
    const ids: string[] = [];
    let bytes = 0;
    for (const container of [...this.#index]) {
      const { status } = container.record.state;
      const { Labels } = container.record.config;
      if (status !== "exited" && status !== "created" && status !== "dead") {
        continue;
      }
      if (Date.parse(container.record.created) > until) continue;
      if (!filters.matchPairs("label", Labels)) continue;
      if (filters.has("label!") && filters.matchPairs("label!", Labels)) {
        continue;
      }
      const size = await allocatedBytes(container.writableDisk);
      await this.#remove(container, false);
      ids.push(container.id);
      bytes += size;
    }
    this.#options.events.publish({
      Type: "container",
      Action: "prune",
      Actor: { ID: "", Attributes: { reclaimed: String(bytes) } },
    });
    return { ids, bytes };
  }

  /**
   * `GET /containers/{id}/top`.
   * @throws {Conflict} it does not run
   */
  async processes(container: Container) {
    const { machine } = container;
    if (container.record.state.status !== "running" || !machine) {
      throw notRunning(container);
    }
    return (await machine.agent.request("processes", {})).processes;
  }
}

function notRunningRemoval(container: Container): Conflict {
  return new Conflict(`container ${container.id} was started meanwhile`);
}

function hasSettings(request: NetworkRequest): boolean {
  const { ipv4Address, ipv6Address, aliases, macAddress } = request;
  return Boolean(ipv4Address ?? ipv6Address ?? aliases ?? macAddress);
}
