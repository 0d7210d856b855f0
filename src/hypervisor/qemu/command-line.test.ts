import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { InvalidParameter } from "../../errors.js";
import {
  commandLine,
  guestName,
  type QemuMachineConfig,
} from "./command-line.js";
import { machineSockets } from "./descriptors.js";
import { memoryMiB, availableMiB } from "./memory.js";
import { tscKhzOf } from "./tsc.js";
import { vmdkDescriptor } from "./vmdk.js";

const config: QemuMachineConfig = {
  name: guestName("hull-abc", "/r,un/m"),
  uuid: "11111111-2222-3333-4444-555555555555",
  accelerator: "tcg",
  kernel: "/k,1/vmlinux",
  initramfs: "/i",
  shape: { memoryMiB: 256, vcpus: 2, nics: "tap" },
  memory: { kind: "own" },
  nics: [{ kind: "tap", device: "hull0" }, { kind: "user" }, { kind: "hub" }],
  tscKhz: 2_596_150,
};

function values(args: string[], option: string): string[] {
  return args.flatMap((arg, at) =>
    arg === option ? [args[at + 1] ?? ""] : [],
  );
}

function devices(args: string[], driver: string): Record<string, unknown>[] {
  return values(args, "-device")
    .map((each) => JSON.parse(each) as Record<string, unknown>)
    .filter((each) => each["driver"] === driver);
}

describe("command line", () => {
  const args = commandLine(config);

  test("commas in the folder's path are doubled", () => {
    assert.deepEqual(values(args, "-name"), ["guest=hull-abc in /r,,un/m"]);
  });

  test("sockets, taps and memory come as open files", () => {
    assert.deepEqual(
      values(args, "-chardev").filter((each) => each.startsWith("socket")),
      [
        "socket,id=qmp,fd=10,server=on,wait=off",
        "socket,id=agent,fd=11,server=on,wait=off",
        "socket,id=share,fd=12,server=on,wait=off",
      ],
    );
    const memory = { kind: "clone", path: "/t/memory" } as const;
    const [ram = ""] = values(commandLine({ ...config, memory }), "-object");
    assert.match(ram, /"mem-path":"\/dev\/fd\/4"/);
  });

  test("disk slots are there and empty, the first one read-only", () => {
    const nodes = values(args, "-blockdev").map(
      (each) => JSON.parse(each) as Record<string, unknown>,
    );
    assert.deepEqual(
      nodes.map((node) => [node["driver"], node["read-only"]]),
      [
        ["null-co", true],
        ["null-co", false],
      ],
    );
    assert.deepEqual(
      devices(args, "virtio-blk-device").map(({ id, drive }) => [id, drive]),
      [
        ["disk0", nodes[0]?.["node-name"]],
        ["disk1", nodes[1]?.["node-name"]],
      ],
    );
  });

  test("memory of a file is shared with it by a template only", () => {
    const ram = (kind: "template" | "clone") =>
      JSON.parse(
        values(
          commandLine({ ...config, memory: { kind, path: "/t/memory" } }),
          "-object",
        )[0] ?? "",
      ) as Record<string, unknown>;
    assert.equal(ram("template")["share"], true);
    assert.equal(ram("clone")["share"], false);
    assert.deepEqual(values(args, "-object"), []);
  });

  test("pages go back to the host only where memory is the machine's own", () => {
    assert.equal(devices(args, "virtio-balloon-device").length, 1);
    for (const kind of ["template", "clone"] as const) {
      const memory = { kind, path: "/t/memory" };
      const others = commandLine({ ...config, memory });
      assert.deepEqual(devices(others, "virtio-balloon-device"), []);
    }
  });

  test("template and clone have the same devices", () => {
    const [template, clone] = (["template", "clone"] as const).map((kind) =>
      commandLine({ ...config, memory: { kind, path: "/t/memory" } }),
    );
    assert.deepEqual(
      values(template ?? [], "-device"),
      values(clone ?? [], "-device"),
    );
  });

  test("no NIC is to be announced: QEMU 7.2 would crash where announcements are off", () => {
    const nics = devices(args, "virtio-net-device");
    assert.equal(nics.length, 3);
    for (const nic of nics) {
      assert.equal(nic["guest_announce"], false);
      assert.equal(nic["ctrl_vlan"], false);
    }
  });

  test("a tap is open already", () => {
    assert.deepEqual(values(args, "-netdev"), [
      "tap,id=net0,fd=16",
      "user,id=net1",
      "hubport,id=net2,hubid=2",
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
