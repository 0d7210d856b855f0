/** What the parts of a container's life between create and remove work with. */
import type { Logger } from "pino";
import type { Hypervisor } from "../../hypervisor/index.js";
import type { ImageSource } from "../../images/index.js";
import type { NetworkService } from "../../networks/index.js";
import type { Volumes } from "../../volumes/index.js";
import type { Container } from "../container.js";
import type { Tell } from "../container-events.js";
import type { Execs } from "../execs.js";
import type { HealthMonitors } from "../health.js";
import type { MachineDefaults } from "../machine-spec.js";
import type { StartTraces } from "../start-traces.js";

export interface RunContext {
  /** Folder for the machines' sockets; short, since a socket's path may have 107 bytes. */
  execRoot: string;
  defaults: MachineDefaults;
  images: ImageSource;
  hypervisor: Hypervisor;
  networks: NetworkService;
  volumes: Volumes;
  tell: Tell;
  log: Logger;
  execs: Execs;
  health: HealthMonitors;
  traces: StartTraces;
  /** Machines that are being taken down. */
  underWay: Set<Promise<void>>;
  /** Removes a container that ended (--rm). */
  remove: (container: Container) => Promise<void>;
}
