import { join } from "node:path";
import { PORT_NAME, SHARE_PORT_NAME } from "../../../protocol/index.js";
import { InvalidParameter } from "../../errors.js";
import type { Disk, Forward, Nic } from "../index.js";

/** virtio-mmio transports of the microvm machine; none can be plugged in later. */
const TRANSPORTS = 8;
/** Those every machine uses: serial (console and agent), entropy, balloon. */
const FIXED_TRANSPORTS = 3;
/** What the guest kernel is built for (CONFIG_NR_CPUS). */
const MAX_VCPUS = 64;
/** Bytes of console output that QEMU keeps. */
export const CONSOLE_BYTES = 64 * 1024;
/**
 * MiB of translated code TCG may keep. QEMU's default is 1 GiB, beside the guest's memory and not
 * limited by it.
 */
const TRANSLATION_CACHE_MIB = 128;

/** A machine as QEMU is to start it. */
export interface QemuMachineConfig {
  /** Shown in the process list. */
  name: string;
  uuid: string;
  accelerator: "kvm" | "tcg";
  kernel: string;
  initramfs: string;
  memoryMiB: number;
  vcpus: number;
  disks: QemuDisk[];
  nics: Nic[];
  sockets: MachineSockets;
  /** The host's TSC frequency, see tsc.ts. */
  tscKhz: number | undefined;
}

/** A disk whose parts are joined: `format` vmdk means that `path` is a descriptor. */
export interface QemuDisk {
  path: string;
  format: "raw" | "vmdk";
  readonly: boolean;
}

export interface MachineSockets {
  qmp: string;
  agent: string;
  /** Where who serves the guest's shared folders connects to. */
  share: string;
}

/** The longest path of a Unix socket: sun_path is 108 bytes with its final zero. */
const MAX_SOCKET_PATH = 107;

/** @throws {InvalidParameter} the directory's name is too long for a socket in it */
export function machineSockets(directory: string): MachineSockets {
  const sockets = {
    qmp: join(directory, "qmp.sock"),
    agent: join(directory, "agent.sock"),
    share: join(directory, "share.sock"),
  };
  const length = Buffer.byteLength(sockets.agent);
  if (length > MAX_SOCKET_PATH) {
    throw new InvalidParameter(
      `the path ${sockets.agent} is ${length} bytes long, a socket's can have ${MAX_SOCKET_PATH}: choose a shorter directory for the daemon's runtime files`,
    );
  }
  return sockets;
}

/** @throws {InvalidParameter} more devices or CPUs than a machine has room for */
export function checkShape(shape: {
  vcpus: number;
  disks: readonly Disk[];
  nics: readonly Nic[];
}): void {
  const { vcpus, disks, nics } = shape;
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > MAX_VCPUS) {
    throw new InvalidParameter(
      `a machine has 1 to ${MAX_VCPUS} virtual CPUs, not ${vcpus}`,
    );
  }
  const room = TRANSPORTS - FIXED_TRANSPORTS;
  if (disks.length + nics.length > room) {
    throw new InvalidParameter(
      `a machine has room for ${room} disks and network interfaces together, not for ${disks.length} and ${nics.length}`,
    );
  }
}

/** The arguments of qemu-system-x86_64. */
export function commandLine(config: QemuMachineConfig): string[] {
  return [
    "-name",
    `guest=${escape(config.name)}`,
    "-uuid",
    config.uuid,
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    ...["-sandbox", sandbox()],
    ...["-machine", machine()],
    ...accelerator(config.accelerator),
    ...["-m", `${config.memoryMiB}M`],
    ...["-smp", String(config.vcpus)],
    // A guest that resets (a panic does) or shuts down stands still, so that its console can be read.
    ...["-action", "reboot=shutdown,shutdown=pause"],
    ...["-kernel", config.kernel],
    ...["-initrd", config.initramfs],
    ...["-append", kernelParameters(config)],
    ...channels(config.sockets),
    ...["-object", json({ "qom-type": "rng-builtin", id: "rng0" })],
    ...device({ driver: "virtio-rng-device", rng: "rng0" }),
    // Free pages go back to the host. Right for memory that is this machine's own; a machine restored
    // from a template maps the template's file, and QEMU 7.2 would punch the holes into that file, out
    // of which all other clones read.
    ...device({ driver: "virtio-balloon-device", "free-page-reporting": true }),
    ...config.nics.flatMap(nic),
    ...config.disks.flatMap(disk),
  ];
}

function sandbox(): string {
  return "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
}

/**
 * No ACPI: devices are announced on the kernel's command line. PIC and PIT are needed: the kernel
 * finds its timer interrupt, and under TCG the APIC timer's speed, by them. The RTC has the time of day.
 */
function machine(): string {
  return [
    "microvm",
    "acpi=off",
    "pic=on",
    "pit=on",
    "rtc=on",
    "isa-serial=off",
    "x-option-roms=off",
    "mem-merge=off",
    "dump-guest-core=off",
  ].join(",");
}

function accelerator(name: "kvm" | "tcg"): string[] {
  return name === "kvm"
    ? ["-accel", "kvm", "-cpu", "host"]
    : ["-accel", `tcg,tb-size=${TRANSLATION_CACHE_MIB}`, "-cpu", "max"];
}

/**
 * - panic=-1, reboot=t: a panic ends the machine at once, by a triple fault;
 * - tsc=reliable, tsc_early_khz: calibration against an emulated timer fails on a busy host, and the
 *   guest would be left with a clock of 4 ms resolution that loses time;
 * - no_timer_check: the same, for the timer interrupt.
 */
function kernelParameters(config: QemuMachineConfig): string {
  const parameters = [
    "console=hvc0",
    "quiet",
    "panic=-1",
    "reboot=t",
    "no_timer_check",
  ];
  if (config.accelerator === "tcg") {
    parameters.push("tsc=reliable");
    if (config.tscKhz) parameters.push(`tsc_early_khz=${config.tscKhz}`);
  }
  return parameters.join(" ");
}

/** QMP; the console into a ring in QEMU's memory; the ports, where QEMU listens. */
function channels(sockets: MachineSockets): string[] {
  return [
    ...[
      "-chardev",
      `socket,id=qmp,path=${escape(sockets.qmp)},server=on,wait=off`,
    ],
    ...["-mon", "chardev=qmp,mode=control"],
    ...["-chardev", `ringbuf,id=console,size=${CONSOLE_BYTES}`],
    ...[
      "-chardev",
      `socket,id=agent,path=${escape(sockets.agent)},server=on,wait=off`,
    ],
    ...[
      "-chardev",
      `socket,id=share,path=${escape(sockets.share)},server=on,wait=off`,
    ],
    ...device({ driver: "virtio-serial-device", max_ports: 3 }),
    ...device({ driver: "virtconsole", chardev: "console", nr: 0 }),
    ...device({
      driver: "virtserialport",
      chardev: "agent",
      nr: 1,
      name: PORT_NAME,
    }),
    ...device({
      driver: "virtserialport",
      chardev: "share",
      nr: 2,
      name: SHARE_PORT_NAME,
    }),
  ];
}

function nic(nic: Nic, index: number): string[] {
  const id = `net${index}`;
  const backend =
    nic.kind === "tap"
      ? `tap,id=${id},ifname=${escape(nic.device)},script=no,downscript=no`
      : `user,id=${id}${(nic.forwards ?? []).map(forward).join("")}`;
  return [
    ...["-netdev", backend],
    ...device({ driver: "virtio-net-device", netdev: id, mac: nic.mac }),
  ];
}

function forward(rule: Forward): string {
  return `,hostfwd=${rule.protocol}:${rule.hostIp}:${rule.hostPort}-${rule.address}:${rule.port}`;
}

function disk(disk: QemuDisk, index: number): string[] {
  const id = `disk${index}`;
  const discard = disk.readonly ? {} : { discard: "unmap" };
  const common = { "read-only": disk.readonly, ...discard };
  return [
    ...[
      "-blockdev",
      json({
        driver: "file",
        "node-name": `${id}-file`,
        filename: disk.path,
        aio: "threads",
        ...common,
      }),
    ],
    ...[
      "-blockdev",
      json({
        driver: disk.format,
        "node-name": id,
        file: `${id}-file`,
        ...common,
      }),
    ],
    ...device({ driver: "virtio-blk-device", drive: id }),
  ];
}

function device(
  properties: Record<string, string | number | boolean>,
): string[] {
  return ["-device", json(properties)];
}

function json(value: object): string {
  return JSON.stringify(value);
}

/** In QEMU's key=value options a comma in a value is doubled. */
function escape(value: string): string {
  return value.replaceAll(",", ",,");
}
