import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { groupLimits, launcherArguments } from "./jail.js";
import { hierarchies } from "./machine-groups.js";
import { parseLdd } from "./room.js";

describe("jail", () => {
  const machine = {
    accelerator: "tcg",
    shape: { memoryMiB: 512, vcpus: 2, nics: "tap" },
    nics: [{ kind: "tap", device: "tap7" }],
    sockets: { qmp: "/m/qmp.sock", agent: "/m/agent.sock", share: "/m/share" },
    inherited: [3],
  } as const;
  const room = {
    directory: "/rooms/a",
    binary: "/usr/bin/qemu",
    kernel: "/k",
    initramfs: "/i",
  };
  const launch = (more: object) =>
    launcherArguments(
      { launcher: "/l", firstUid: 1_000_000, room },
      { ...machine, nics: [...machine.nics], inherited: [3], ...more },
    ).join(" ");

  test("what QEMU needs of the host is opened before it is confined", () => {
    assert.equal(
      launch({}),
      "--keep 3 --listen 10=/m/qmp.sock --listen 11=/m/agent.sock --listen 12=/m/share --tap 16=tap7 --room /rooms/a --first-uid 1000000 --processes 130 --",
    );
    assert.match(launch({ accelerator: "kvm" }), / --open 9=\/dev\/kvm /);
  });

  test("the host's network is there for user mode only", () => {
    assert.doesNotMatch(launch({}), /--host-network/);
    assert.match(launch({ nics: [{ kind: "user" }] }), /--host-network/);
  });

  test("without a room nothing is given up", () => {
    const args = launcherArguments(
      { launcher: "/l", firstUid: 1_000_000 },
      { ...machine, nics: [], inherited: [] },
    );
    assert.deepEqual(args.slice(0, 2), ["--listen", "10=/m/qmp.sock"]);
    assert(!args.includes("--room") && !args.includes("--first-uid"));
  });

  test("memory is limited to the guest's and what QEMU needs besides", () => {
    assert.deepEqual(groupLimits(machine.shape, 128), {
      memoryBytes: (512 + 128 + 256) * 1024 * 1024,
      tasks: 130,
    });
  });
});

describe("control groups", () => {
  const read = (mounts: string, available: Record<string, string[]> = {}) =>
    hierarchies(mounts, (mount) => Promise.resolve(available[mount] ?? []));

  test("of version 2 are found by the controllers they have", async () => {
    const mounts =
      "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
    const available = { "/sys/fs/cgroup": ["cpu", "memory", "pids"] };
    assert.deepEqual(await read(mounts, available), [
      { version: 2, mount: "/sys/fs/cgroup", controllers: ["memory", "pids"] },
    ]);
    assert.deepEqual(await read(mounts), []);
  });

  test("of version 1 are found beside a version 2 without controllers", async () => {
    const mounts = [
      "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0",
      "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct 0 0",
      "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0",
      "cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0",
    ].join("\n");
    assert.deepEqual(await read(mounts), [
      { version: 1, mount: "/sys/fs/cgroup/memory", controllers: ["memory"] },
      { version: 1, mount: "/sys/fs/cgroup/pids", controllers: ["pids"] },
    ]);
  });
});

test("ldd's words are read: libraries, the loader, and nothing that is no file", () => {
  const words = [
    "\tlinux-vdso.so.1 (0x00007ffc5e5f2000)",
    "\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f1c9a000000)",
    "\tlibgone.so => not found",
    "\t/lib64/ld-linux-x86-64.so.2 (0x00007f1c9b000000)",
    "",
  ].join("\n");
  assert.deepEqual(parseLdd(words), [
    "/lib/x86_64-linux-gnu/libz.so.1",
    "/lib64/ld-linux-x86-64.so.2",
  ]);
});
