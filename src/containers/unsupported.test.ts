import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { parse } from "yaml";
import { InvalidParameter, NotFound, NotImplemented } from "../errors.js";
import type { Image } from "../images/index.js";
import { createRequestSchema } from "./create-request.js";
import { newRecord } from "./new-container.js";
import { warningsOf } from "./unsupported.js";

const IMAGE: Image = {
  id: "sha256:" + "1".repeat(64),
  repoTags: [],
  repoDigests: [],
  config: { Cmd: ["sh"] },
  architecture: "amd64",
  os: "linux",
};
const DEFAULTS = { memoryBytes: 2 ** 28, vcpus: 1, diskBytes: 2 ** 30 };

function create(request: object) {
  const parsed = createRequestSchema.parse({ Image: "x", ...request });
  return newRecord("1".repeat(64), "name", parsed, IMAGE, DEFAULTS);
}

/** In force: a test of the compatibility suite shows it. */
const honoured = "in force";
/** Of another system, or of the client: Docker on Linux does nothing with it either. */
const idle = "idle";
/** A value that is refused by the field's name, or by Docker's words for it. */
const refused = (value: unknown, words?: RegExp) => ({ refused: value, words });
/** A value that is taken, with a warning. */
const warned = (value: unknown) => ({ warned: value });

type Class =
  | typeof honoured
  | typeof idle
  | ReturnType<typeof refused>
  | ReturnType<typeof warned>;

const RESOURCES: Record<string, Class> = {
  CpuShares: honoured,
  Memory: honoured,
  CgroupParent: warned("/x"),
  BlkioWeight: refused(300),
  BlkioWeightDevice: refused([{ Path: "/dev/sda", Weight: 1 }]),
  BlkioDeviceReadBps: refused([{ Path: "/dev/sda", Rate: 1 }]),
  BlkioDeviceWriteBps: refused([{ Path: "/dev/sda", Rate: 1 }]),
  BlkioDeviceReadIOps: refused([{ Path: "/dev/sda", Rate: 1 }]),
  BlkioDeviceWriteIOps: refused([{ Path: "/dev/sda", Rate: 1 }]),
  CpuPeriod: honoured,
  CpuQuota: honoured,
  CpuRealtimePeriod: refused(1000),
  CpuRealtimeRuntime: refused(1000),
  CpusetCpus: refused("0"),
  CpusetMems: refused("0"),
  Devices: refused([{ PathOnHost: "/dev/kvm" }]),
  DeviceCgroupRules: refused(["c 1:1 rwm"]),
  DeviceRequests: refused([{ Driver: "nvidia" }]),
  KernelMemoryTCP: warned(2 ** 20),
  MemoryReservation: honoured,
  MemorySwap: honoured,
  MemorySwappiness: warned(0),
  NanoCpus: honoured,
  OomKillDisable: warned(true),
  Init: honoured,
  PidsLimit: honoured,
  Ulimits: honoured,
  CpuCount: idle,
  CpuPercent: idle,
  IOMaximumIOps: idle,
  IOMaximumBandwidth: idle,
};

const HOST_CONFIG: Record<string, Class> = {
  ...RESOURCES,
  Binds: honoured,
  ContainerIDFile: idle,
  LogConfig: honoured,
  NetworkMode: honoured,
  PortBindings: honoured,
  RestartPolicy: honoured,
  AutoRemove: honoured,
  VolumeDriver: refused("nfs", /error looking up volume plugin nfs/),
  VolumesFrom: honoured,
  Mounts: honoured,
  ConsoleSize: honoured,
  // Kept and shown: they are for runtimes that look at them.
  Annotations: idle,
  CapAdd: honoured,
  CapDrop: honoured,
  CgroupnsMode: refused("host"),
  Dns: honoured,
  DnsOptions: honoured,
  DnsSearch: honoured,
  ExtraHosts: honoured,
  GroupAdd: honoured,
  IpcMode: refused("host"),
  // Without effect since Docker 1.13.
  Cgroup: idle,
  Links: honoured,
  OomScoreAdj: honoured,
  PidMode: refused("host"),
  Privileged: honoured,
  PublishAllPorts: honoured,
  ReadonlyRootfs: honoured,
  SecurityOpt: refused(["seccomp=/x.json"]),
  StorageOpt: refused({ size: "1G" }),
  Tmpfs: honoured,
  UTSMode: refused("host"),
  UsernsMode: refused("container:x"),
  ShmSize: honoured,
  Sysctls: honoured,
  Runtime: refused("runsc", /unknown or invalid runtime name: runsc/),
  Isolation: refused("hyperv", /invalid isolation \(hyperv\)/),
  MaskedPaths: honoured,
  ReadonlyPaths: honoured,
};

const CONTAINER_CONFIG: Record<string, Class> = {
  Hostname: honoured,
  Domainname: honoured,
  User: honoured,
  AttachStdin: honoured,
  AttachStdout: honoured,
  AttachStderr: honoured,
  ExposedPorts: honoured,
  Tty: honoured,
  OpenStdin: honoured,
  StdinOnce: honoured,
  Env: honoured,
  Cmd: honoured,
  Healthcheck: honoured,
  ArgsEscaped: idle,
  Image: honoured,
  Volumes: honoured,
  WorkingDir: honoured,
  Entrypoint: honoured,
  NetworkDisabled: honoured,
  MacAddress: honoured,
  // Of images; a container's own is dropped by Docker, too.
  OnBuild: idle,
  Labels: honoured,
  StopSignal: honoured,
  StopTimeout: honoured,
  Shell: honoured,
};

const SPEC = fileURLToPath(
  new URL("../../../shared/engine-api/v1.51.yaml", import.meta.url),
);

interface Schema {
  properties?: Record<string, unknown>;
  allOf?: Schema[];
  $ref?: string;
}

test(
  "every field of the specification has its class, and no other is named",
  {
    skip: existsSync(SPEC)
      ? false
      : "the specification is not beside the project",
  },
  () => {
    const { definitions } = parse(readFileSync(SPEC, "utf8")) as {
      definitions: Record<string, Schema>;
    };
    const fields = (schema: Schema | undefined): string[] => [
      ...Object.keys(schema?.properties ?? {}),
      ...(schema?.allOf ?? []).flatMap(fields),
      ...(schema?.$ref
        ? fields(definitions[schema.$ref.split("/").at(-1) ?? ""])
        : []),
    ];
    for (const [name, table] of [
      ["Resources", RESOURCES],
      ["HostConfig", HOST_CONFIG],
      ["ContainerConfig", CONTAINER_CONFIG],
    ] as const) {
      assert.deepEqual(
        Object.keys(table).sort(),
        fields(definitions[name]).sort(),
        name,
      );
    }
  },
);

test("what is in force is in the request's schema: no field of a wrong type passes unseen", () => {
  const { HostConfig, ...own } = createRequestSchema.shape;
  assert.ok(HostConfig, "the schema of HostConfig");
  for (const [name, kind] of Object.entries(CONTAINER_CONFIG)) {
    if (kind !== idle) assert.ok(name in own, name);
  }
  for (const [name, kind] of Object.entries(HOST_CONFIG)) {
    if (kind === idle) continue;
    // No field takes a function; one that is not in the schema takes anything.
    const parsed = createRequestSchema.safeParse({
      HostConfig: { [name]: () => undefined },
    });
    assert.equal(parsed.success, false, `${name} is not in the schema`);
  }
});

test("what cannot be is refused by name", () => {
  for (const [name, kind] of Object.entries(HOST_CONFIG)) {
    if (typeof kind !== "object" || !("refused" in kind)) continue;
    assert.throws(
      () => create({ HostConfig: { [name]: kind.refused } }),
      (error: Error) => {
        assert.ok(
          error instanceof NotImplemented ||
            error instanceof InvalidParameter ||
            error instanceof NotFound,
          `${name}: ${error.stack}`,
        );
        assert.match(
          error.message,
          kind.words ?? new RegExp(`HostConfig\\.${name}\\b`),
        );
        return true;
      },
    );
  }
});

test("what has no effect is taken with a warning, and what is not given with none", () => {
  assert.deepEqual(warningsOf(create({ HostConfig: {} }).hostConfig), []);
  for (const [name, kind] of Object.entries(HOST_CONFIG)) {
    if (typeof kind !== "object" || !("warned" in kind)) continue;
    const { hostConfig } = create({ HostConfig: { [name]: kind.warned } });
    assert.equal(warningsOf(hostConfig).length, 1, name);
    assert.match(warningsOf(hostConfig)[0] ?? "", /discarded\.$/);
  }
  // What the CLI sends for "not given".
  create({
    HostConfig: {
      MemorySwappiness: -1,
      BlkioWeight: 0,
      Devices: [],
      CpusetCpus: "",
      Isolation: "default",
      VolumeDriver: "local",
    },
  });
  assert.throws(
    () => create({ HostConfig: { MemorySwappiness: 101 } }),
    /valid memory swappiness range is 0-100/,
  );
});
