import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { InvalidParameter } from "../../errors.js";
import {
  checkShape,
  commandLine,
  machineSockets,
  type QemuMachineConfig,
} from "./command-line.js";
import { memoryMiB, availableMiB } from "./memory.js";
import { tscKhzOf } from "./tsc.js";
import { vmdkDescriptor } from "./vmdk.js";

const config: QemuMachineConfig = {
  name: "hull-abc",
  uuid: "11111111-2222-3333-4444-555555555555",
  accelerator: "tcg",
  kernel: "/k,1/vmlinux",
  initramfs: "/i",
  memoryMiB: 256,
  vcpus: 2,
  disks: [
    { path: "/d/a,b.vmdk", format: "vmdk", readonly: true },
    { path: "/d/w.img", format: "raw", readonly: false },
  ],
  nics: [
    { kind: "tap", mac: "02:00:00:00:00:01", device: "hull0" },
    { kind: "user", mac: "02:00:00:00:00:02" },
  ],
  sockets: {
    qmp: "/r,un/qmp.sock",
    agent: "/r,un/agent.sock",
    share: "/r,un/share.sock",
  },
  tscKhz: 2_596_150,
};

function values(args: string[], option: string): string[] {
  return args.flatMap((arg, at) =>
    arg === option ? [args[at + 1] ?? ""] : [],
  );
}

describe("command line", () => {
  const args = commandLine(config);

  test("commas in socket paths are doubled", () => {
    const chardevs = values(args, "-chardev");
    assert(chardevs.some((each) => each.includes("path=/r,,un/qmp.sock,")));
    assert(chardevs.some((each) => each.includes("path=/r,,un/agent.sock,")));
  });

  test("disks keep their order, and only writable ones discard", () => {
    const nodes = values(args, "-blockdev").map(
      (each) => JSON.parse(each) as Record<string, unknown>,
    );
    assert.deepEqual(
      nodes.map((node) => [
        node["driver"],
        node["node-name"],
        node["read-only"],
        node["discard"],
      ]),
      [
        ["file", "disk0-file", true, undefined],
        ["vmdk", "disk0", true, undefined],
        ["file", "disk1-file", false, "unmap"],
        ["raw", "disk1", false, "unmap"],
      ],
    );
    assert.equal(nodes[0]?.["filename"], "/d/a,b.vmdk");
    const drives = values(args, "-device")
      .map((each) => JSON.parse(each) as Record<string, unknown>)
      .filter((each) => each["driver"] === "virtio-blk-device");
    assert.deepEqual(
      drives.map((each) => each["drive"]),
      ["disk0", "disk1"],
    );
  });

  test("a tap runs no scripts on the host", () => {
    assert.deepEqual(values(args, "-netdev"), [
      "tap,id=net0,ifname=hull0,script=no,downscript=no",
      "user,id=net1",
    ]);
  });

  test("the guest is told the TSC's frequency under TCG only", () => {
    assert.match(values(args, "-append")[0] ?? "", /tsc_early_khz=2596150/);
    const kvm = commandLine({ ...config, accelerator: "kvm" });
    assert.doesNotMatch(values(kvm, "-append")[0] ?? "", /tsc/);
    const unknown = commandLine({ ...config, tscKhz: undefined });
    assert.doesNotMatch(values(unknown, "-append")[0] ?? "", /tsc_early/);
  });

  test("a directory whose sockets would have too long a path is refused", () => {
    const fits = "/" + "d".repeat(107 - "/agent.sock".length - 1);
    assert.equal(machineSockets(fits).agent.length, 107);
    assert.throws(
      () => machineSockets(fits + "d"),
      (error: Error) =>
        error instanceof InvalidParameter && /108 bytes/.test(error.message),
    );
  });

  test("more devices or CPUs than there is room for are refused", () => {
    const disk = { parts: [], readonly: true };
    const nic = { kind: "user", mac: "" } as const;
    const shape = { vcpus: 1, disks: [disk, disk, disk, disk], nics: [nic] };
    checkShape(shape);
    assert.throws(
      () => checkShape({ ...shape, disks: [disk, ...shape.disks] }),
      /room for 5 .* not for 5 and 1/,
    );
    for (const vcpus of [0, 1.5, 65, NaN]) {
      assert.throws(() => checkShape({ ...shape, vcpus }), InvalidParameter);
    }
  });
});

describe("vmdk descriptor", () => {
  test("each part begins at a multiple of 4096, and no line is empty", () => {
    const text = vmdkDescriptor([
      { path: "/a", bytes: 512 },
      { path: "/b c", bytes: 8192 },
    ]);
    assert.match(text, /^RW 8 FLAT "\/a" 0\nRW 16 FLAT "\/b c" 0\n$/m);
    assert.doesNotMatch(text, /\n\n/);
  });

  test("paths that would change the descriptor's meaning are refused", () => {
    for (const path of ["relative", '/a"b', "/a\nRW 1 FLAT", "/a\rb"]) {
      assert.throws(
        () => vmdkDescriptor([{ path, bytes: 512 }]),
        InvalidParameter,
      );
    }
    assert.throws(
      () => vmdkDescriptor([{ path: "/a", bytes: 100 }]),
      /no multiple of 512/,
    );
  });
});

describe("memory", () => {
  test("is rounded up to MiB, and refused where nothing would boot", () => {
    assert.equal(memoryMiB(100 * 1024 * 1024 + 1), 101);
    assert.throws(() => memoryMiB(6 * 1024 * 1024), InvalidParameter);
    assert.throws(() => memoryMiB(NaN), InvalidParameter);
  });

  test("MemAvailable is read in MiB", () => {
    assert.equal(
      availableMiB("MemTotal: 9 kB\nMemAvailable:   204800 kB\n"),
      200,
    );
    assert.equal(availableMiB(""), undefined);
  });
});

describe("TSC frequency", () => {
  const cpu = (mhz: string, flags: string) =>
    `processor\t: 0\ncpu MHz\t\t: ${mhz}\nflags\t\t: fpu tsc ${flags}\n`;

  test("is taken from a virtual host's cpuinfo", () => {
    const text = cpu("2596.150", "constant_tsc hypervisor");
    assert.equal(tscKhzOf(text), 2_596_150);
  });

  test("is unknown where cpuinfo shows a core's speed of the moment", () => {
    assert.equal(tscKhzOf(cpu("1800.000", "constant_tsc")), undefined);
    assert.equal(
      tscKhzOf(cpu("1800.000", "constant_tsc hypervisor aperfmperf")),
      undefined,
    );
    assert.equal(tscKhzOf(cpu("1800.000", "hypervisor")), undefined);
    assert.equal(tscKhzOf(""), undefined);
  });
});
