import assert from "node:assert/strict";
import { test } from "node:test";
import { SETUP_DEFAULTS, SPAWN_DEFAULTS } from "../../protocol/index.js";
import type { HostConfig } from "./create-request.js";
import { execSpawn, initSpawn, setupOf } from "./machine-spec.js";
import { plainRecord } from "./plain-record.js";
import type { ContainerRecord } from "./record.js";

function record(
  hostConfig: HostConfig = {},
  config: Partial<ContainerRecord["config"]> = {},
): ContainerRecord {
  const plain = plainRecord("box", ["sh"]);
  return {
    ...plain,
    id: "0123456789abcdef".repeat(4),
    name: "box",
    config: { ...plain.config, ...config },
    hostConfig,
  };
}

const ORDINARY = record();

test("an ordinary container's guest is told what is this container's own, and nothing else", () => {
  const { time, entropy, ...setup } = setupOf(ORDINARY, []);
  assert.ok(time > 0 && entropy && entropy.length >= 88);
  assert.deepEqual(Object.keys(setup).sort(), [
    "files",
    "hostname",
    "machineId",
    "network",
  ]);
  assert.deepEqual(Object.keys(initSpawn(ORDINARY)).sort(), [
    "args",
    "env",
    "process",
  ]);
});

test("a guest that has entropy of its own is given none again", () => {
  assert.ok(!("entropy" in setupOf(ORDINARY, [], true)));
  assert.notEqual(setupOf(ORDINARY, []).entropy, setupOf(ORDINARY, []).entropy);
});

test("what is as the defaults have it is not said, though the user did", () => {
  const said = record(
    {
      ShmSize: SETUP_DEFAULTS.shmSize,
      ReadonlyRootfs: false,
      Privileged: false,
      MaskedPaths: [...SETUP_DEFAULTS.maskedPaths],
      ReadonlyPaths: [...SETUP_DEFAULTS.readonlyPaths],
      CapDrop: ["ALL"],
      CapAdd: [...SPAWN_DEFAULTS.capabilities],
      Sysctls: {},
      Ulimits: [],
      OomScoreAdj: 0,
      Init: false,
    },
    { WorkingDir: "/" },
  );
  const fields = (one: ContainerRecord) => [
    Object.keys(setupOf(one, [])),
    initSpawn(one),
  ];
  assert.deepEqual(fields(said), fields(ORDINARY));
});

test("what is otherwise is said", () => {
  const setup = (host: HostConfig, config = {}) => {
    const { time, entropy, hostname, machineId, network, files, ...rest } =
      setupOf(record(host, config), []);
    assert.ok(time && entropy && hostname && machineId && network && files);
    return rest;
  };
  assert.deepEqual(setup({ ReadonlyRootfs: true }), {
    rootfs: { image: 0, writable: 1, readonly: true },
  });
  assert.deepEqual(setup({ ShmSize: 4096, Sysctls: { "net.x": "1" } }), {
    shmSize: 4096,
    sysctls: { "net.x": "1" },
  });
  assert.deepEqual(setup({ MaskedPaths: [], ReadonlyPaths: ["/x"] }), {
    maskedPaths: [],
    readonlyPaths: ["/x"],
  });
  // Nothing is masked, and that must be said.
  assert.deepEqual(setup({ Privileged: true }), {
    privileged: true,
    maskedPaths: [],
    readonlyPaths: [],
  });
  assert.deepEqual(setup({ Memory: 1 << 26 }, { Domainname: "d" }), {
    domainname: "d",
    limits: { memoryBytes: 1 << 26 },
  });
  const { process, args, env, ...spawn } = initSpawn(
    record(
      { CapAdd: ["SYS_TIME"], GroupAdd: ["7"], Init: true, OomScoreAdj: 9 },
      { User: "app", OpenStdin: true, WorkingDir: "/srv" },
    ),
  );
  assert.ok(process && args && env);
  assert.deepEqual(spawn, {
    cwd: "/srv",
    user: "app",
    groups: ["7"],
    stdin: true,
    // In the order of their numbers.
    capabilities: [
      ...SPAWN_DEFAULTS.capabilities.slice(0, 11),
      "SYS_TIME",
      ...SPAWN_DEFAULTS.capabilities.slice(11),
    ],
    oomScoreAdj: 9,
    init: true,
  });
});

test("an exec says everything: its machine may be older than the defaults", () => {
  const { init, ...defaults } = SPAWN_DEFAULTS;
  assert.equal(init, false);
  const { process, args, env, ...spawn } = execSpawn(ORDINARY, 2, {
    Cmd: ["ls"],
  });
  assert.deepEqual([process, args, env.length], [2, ["ls"], 2]);
  assert.deepEqual(spawn, defaults);
});
