/** From what a user asks for, and the image, to a container's record. All checks are here. */
import { isIP } from "node:net";
import { InvalidParameter } from "../errors.js";
import type { Image, ImageConfig } from "../images/index.js";
import { capabilitiesOf } from "./capabilities.js";
import { initialState } from "./container.js";
import type { CreateRequest, HostConfig } from "./create-request.js";
import { checkHealthcheck, mergeHealthcheck } from "./healthcheck.js";
import { checkIsolation } from "./isolation.js";
import { logOptions } from "./log/options.js";
import {
  KERNEL_LABEL,
  type MachineDefaults,
  mergeEnv,
} from "./machine-spec.js";
import { parseExtraHost } from "./network-files.js";
import { networkRequests } from "./network-requests.js";
import {
  type ContainerConfig,
  type ContainerRecord,
  RECORD_VERSION,
} from "./record.js";
import { checkPorts } from "./port-requests.js";
import { parseMount } from "./mounts/specification.js";
import { checkResources, checkRestartPolicy } from "./resources.js";
import { signalNumber } from "./signals.js";
import { refuseImpossible } from "./unsupported.js";

/**
 * @throws {InvalidParameter} a value that cannot be, in Docker's words where it has some
 * @throws {NotImplemented} something hull does not do yet, by name
 */
export function newRecord(
  id: string,
  name: string,
  request: CreateRequest,
  image: Image,
  defaults: MachineDefaults,
): ContainerRecord {
  const host = request.HostConfig ?? {};
  checkHostConfig(host);
  checkPorts(request);
  const config = mergeConfig(id, request, image.config);
  if (config.StopSignal) signalNumber(config.StopSignal);
  checkHealthcheck(config.Healthcheck);
  checkKernel(config.Labels[KERNEL_LABEL], defaults.kernels ?? []);
  if (config.WorkingDir && !config.WorkingDir.startsWith("/")) {
    throw new InvalidParameter(
      `the working directory '${config.WorkingDir}' is invalid, it needs to be an absolute path`,
    );
  }
  const argv = [...(config.Entrypoint ?? []), ...(config.Cmd ?? [])];
  if (argv.length === 0) throw new InvalidParameter("no command specified");
  return {
    version: RECORD_VERSION,
    id,
    name,
    created: new Date().toISOString(),
    imageId: image.id,
    config,
    hostConfig: withDefaults(host),
    networks: networkRequests(request),
    argv,
    state: initialState(),
    restartCount: 0,
    endpoints: [],
    diskBytes: defaults.diskBytes,
  };
}

function checkKernel(name: string | undefined, kernels: readonly string[]) {
  if (!name || kernels.includes(name)) return;
  const known = kernels.map((one) => `"${one}"`).join(", ") || "none";
  throw new InvalidParameter(
    `invalid label ${KERNEL_LABEL}: no guest kernel is named "${name}" (the daemon's configuration has ${known})`,
  );
}

/** What the user gave wins; environment and labels are joined (moby daemon/commit.go merge). */
function mergeConfig(
  id: string,
  request: CreateRequest,
  image: ImageConfig,
): ContainerConfig {
  for (const entry of request.Env ?? []) {
    if (entry === "" || entry.startsWith("=") || entry.includes("\0")) {
      throw new InvalidParameter(`invalid environment variable: ${entry}`);
    }
  }
  // A new entrypoint makes the image's command meaningless.
  const ownEntrypoint = request.Entrypoint !== undefined;
  const entrypoint = ownEntrypoint
    ? noneIfBlank(request.Entrypoint)
    : (image.Entrypoint ?? null);
  const command = request.Cmd?.length
    ? request.Cmd
    : ownEntrypoint
      ? null
      : (image.Cmd ?? null);
  const config: ContainerConfig = {
    Hostname: request.Hostname || id.slice(0, 12),
    Domainname: request.Domainname ?? "",
    User: request.User || image.User || "",
    AttachStdin: request.AttachStdin ?? false,
    AttachStdout: request.AttachStdout ?? false,
    AttachStderr: request.AttachStderr ?? false,
    Tty: request.Tty ?? false,
    OpenStdin: request.OpenStdin ?? false,
    StdinOnce: request.StdinOnce ?? false,
    Env: mergeEnv(image.Env ?? [], request.Env ?? []),
    Cmd: command,
    Image: request.Image ?? "",
    Volumes: null,
    WorkingDir: request.WorkingDir || image.WorkingDir || "",
    Entrypoint: entrypoint,
    OnBuild: null,
    Labels: { ...image.Labels, ...request.Labels },
  };
  const volumes = { ...image.Volumes, ...request.Volumes };
  if (Object.keys(volumes).length) config.Volumes = volumes;
  const ports = { ...image.ExposedPorts, ...request.ExposedPorts };
  if (Object.keys(ports).length) config.ExposedPorts = ports;
  const stopSignal = request.StopSignal || image.StopSignal;
  if (stopSignal) config.StopSignal = stopSignal;
  if (request.StopTimeout !== undefined) {
    config.StopTimeout = request.StopTimeout;
  }
  if (request.NetworkDisabled) config.NetworkDisabled = true;
  const healthcheck = mergeHealthcheck(request.Healthcheck, image.Healthcheck);
  if (healthcheck) config.Healthcheck = healthcheck;
  const shell = request.Shell ?? image.Shell;
  if (shell) config.Shell = shell;
  return config;
}

/** The CLI sends [""] for `--entrypoint ""`: none at all. */
function noneIfBlank(argv: string[] | undefined): string[] | null {
  return !argv?.length || (argv.length === 1 && argv[0] === "") ? null : argv;
}

function withDefaults(host: HostConfig): HostConfig {
  return {
    ...host,
    CgroupnsMode: host.CgroupnsMode || "private",
    NetworkMode: host.NetworkMode || "default",
    LogConfig: {
      Type: host.LogConfig?.Type || "json-file",
      Config: host.LogConfig?.Config ?? {},
    },
    RestartPolicy: {
      Name: host.RestartPolicy?.Name || "no",
      MaximumRetryCount: host.RestartPolicy?.MaximumRetryCount ?? 0,
    },
  };
}

function checkHostConfig(host: HostConfig): void {
  checkResources(host);
  checkRestartPolicy(host.RestartPolicy, host.AutoRemove ?? false);
  capabilitiesOf(host);
  logOptions(host);
  for (const entry of host.ExtraHosts ?? []) parseExtraHost(entry);
  for (const server of host.Dns ?? []) {
    if (!isIP(server)) {
      throw new InvalidParameter(`invalid IP address: ${server}`);
    }
  }
  for (const limit of host.Ulimits ?? []) {
    if (limit.Hard !== -1 && limit.Soft > limit.Hard) {
      throw new InvalidParameter(
        `ulimit soft limit must be less than or equal to hard limit: ${limit.Soft} > ${limit.Hard}`,
      );
    }
  }
  if ((host.ShmSize ?? 0) < 0) {
    throw new InvalidParameter("SHM size can not be less than 0");
  }
  for (const target of Object.keys(host.Tmpfs ?? {})) checkTarget(target);
  checkUnsupported(host);
}

function checkTarget(target: string): void {
  if (!target.startsWith("/")) {
    throw new InvalidParameter(
      `invalid mount path: '${target}' mount path must be absolute`,
    );
  }
  if (/^\/+$/.test(target)) {
    throw new InvalidParameter("invalid mount: destination can't be '/'");
  }
}

/** Refuses by name what would otherwise silently not happen. */
function checkUnsupported(host: HostConfig): void {
  refuseImpossible(host);
  for (const mount of host.Mounts ?? []) parseMount(mount);
  checkIsolation(host);
  if (host.Runtime && host.Runtime !== "hull" && host.Runtime !== "runc") {
    throw new InvalidParameter(
      `unknown or invalid runtime name: ${host.Runtime}`,
    );
  }
}
