import { PORT_NAME, SHARE_PORT_NAME } from "../../../protocol/index.js";
import { DISK_SLOTS, NIC_SLOTS } from "../slots.js";
import { Descriptor, tapDescriptor } from "./descriptors.js";
import type { MachineShape } from "./shape.js";

/** Bytes of console output that QEMU keeps. */
export const CONSOLE_BYTES = 64 * 1024;
/**
 * MiB of translated code TCG may keep. QEMU's default is 1 GiB, beside the guest's memory and not
 * limited by it.
 */
export const TRANSLATION_CACHE_MIB = 128;

/**
 * What an empty disk slot says it holds, in bytes. The guest reads a disk's capacity once, before it
 * has a disk: a file behind the slot may have any size below.
 */
const SLOT_BYTES = 2 ** 44;

/** A machine as QEMU is to start it: every slot is there, and empty. */
export interface QemuMachineConfig {
  /** Shown in the process list: see `guestName`. */
  name: string;
  uuid: string;
  accelerator: "kvm" | "tcg";
  kernel: string;
  /** What its command line gets beside hull's own. */
  kernelParameters?: string;
  initramfs: string;
  shape: MachineShape;
  memory: GuestMemory;
  nics: NicBackend[];
  /** The host's TSC frequency, see tsc.ts. */
  tscKhz: number | undefined;
}

/**
 * The guest's RAM: memory of its own, a file that all it writes goes to (a template), or a private copy
 * of such a file, waiting for the state of the devices. `saved` waits for memory and devices of a machine
 * that had memory of its own, or was a clone: the two have different devices.
 * The file is `Descriptor.memory`.
 */
export type GuestMemory =
  | { kind: "own" }
  | { kind: "template" | "clone"; path: string }
  | { kind: "saved"; of: "own" | "clone" };

/** The host's end of a NIC; a `hub` leads nowhere. */
export type NicBackend =
  { kind: "tap"; device: string } | { kind: "user" } | { kind: "hub" };

/** A machine's name in its process list says where its folder was when it started. */
export function guestName(name: string, directory: string): string {
  return escape(`${name} in ${directory}`);
}

/** The arguments of qemu-system-x86_64. */
export function commandLine(config: QemuMachineConfig): string[] {
  const { shape, memory } = config;
  return [
    "-name",
    `guest=${config.name}`,
    "-uuid",
    config.uuid,
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    ...["-sandbox", sandbox()],
    ...["-machine", machine(memory)],
    ...accelerator(config.accelerator),
    ...["-m", `${shape.memoryMiB}M`],
    ...ram(shape, memory),
    ...["-smp", String(shape.vcpus)],
    // A guest that resets (a panic does) or shuts down stands still, so that its console can be read.
    ...["-action", "reboot=shutdown,shutdown=pause"],
    ...["-kernel", config.kernel],
    ...["-initrd", config.initramfs],
    ...["-append", kernelParameters(config)],
    ...channels(),
    ...config.nics.slice(0, NIC_SLOTS).flatMap(nic),
    ...Array.from({ length: DISK_SLOTS }, (_, slot) => diskSlot(slot)).flat(),
    ...balloon(memory),
    ...(isIncoming(memory) ? ["-incoming", "defer"] : []),
  ];
}

/** Whether the machine waits for a state instead of booting. */
export function isIncoming({ kind }: GuestMemory): boolean {
  return kind === "clone" || kind === "saved";
}

/** Whether nothing of the guest's memory is a template's. */
export function isOwn(memory: GuestMemory): boolean {
  return (memory.kind === "saved" ? memory.of : memory.kind) === "own";
}

function sandbox(): string {
  return "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
}

/**
 * No ACPI: devices are announced on the kernel's command line. PIC and PIT are needed: the kernel
 * finds its timer interrupt, and under TCG the APIC timer's speed, by them. The RTC has the time of day.
 */
function machine(memory: GuestMemory): string {
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
    ...(isOwn(memory) ? [] : ["memory-backend=ram"]),
  ].join(",");
}

function ram(shape: MachineShape, memory: GuestMemory): string[] {
  if (isOwn(memory)) return [];
  const file =
    "path" in memory
      ? {
          "mem-path": `/dev/fd/${Descriptor.memory}`,
          share: memory.kind === "template",
        }
      : undefined;
  const backend = json({
    "qom-type": file ? "memory-backend-file" : "memory-backend-ram",
    id: "ram",
    size: shape.memoryMiB * 1024 * 1024,
    ...file,
    merge: false,
    dump: false,
  });
  return ["-object", backend];
}

/**
 * Free pages go back to the host. Only where memory is this machine's own: out of a template's file QEMU
 * 7.2 would punch the holes, and all other clones read that file.
 */
function balloon(memory: GuestMemory): string[] {
  return isOwn(memory)
    ? device({ driver: "virtio-balloon-device", "free-page-reporting": true })
    : [];
}

/**
 * A processor says by ERMS and FSRM that `rep movsb` is the fast way to copy, and kernels and libraries then
 * copy with it. TCG goes through it byte by byte: without the flags a pipe costs less than half as much.
 */
function accelerator(name: "kvm" | "tcg"): string[] {
  return name === "kvm"
    ? ["-accel", "kvm", "-cpu", "host"]
    : [
        ...["-accel", `tcg,tb-size=${TRANSLATION_CACHE_MIB}`],
        ...["-cpu", "max,-erms,-fsrm"],
      ];
}

/**
 * - panic=-1, reboot=t: a panic ends the machine at once, by a triple fault;
 * - tsc=reliable, tsc_early_khz: calibration against an emulated timer fails on a busy host, and the
 *   guest would be left with a clock of 4 ms resolution that loses time;
 * - no_timer_check: the same, for the timer interrupt;
 * - rcu_expedited: who mounts, or leaves a namespace, waits for a grace period, which else takes timer ticks.
 */
function kernelParameters(config: QemuMachineConfig): string {
  const parameters = [
    "console=hvc0",
    "quiet",
    "panic=-1",
    "reboot=t",
    "no_timer_check",
    "rcupdate.rcu_expedited=1",
  ];
  if (config.accelerator === "tcg") {
    parameters.push("tsc=reliable");
    if (config.tscKhz) parameters.push(`tsc_early_khz=${config.tscKhz}`);
  }
  if (config.kernelParameters) parameters.push(config.kernelParameters);
  return parameters.join(" ");
}

/** QMP; the console into a ring in QEMU's memory; the ports. Sockets listen already. */
function channels(): string[] {
  const listening = (id: string, descriptor: number) => [
    "-chardev",
    `socket,id=${id},fd=${descriptor},server=on,wait=off`,
  ];
  return [
    ...listening("qmp", Descriptor.qmp),
    ...["-mon", "chardev=qmp,mode=control"],
    ...["-chardev", `ringbuf,id=console,size=${CONSOLE_BYTES}`],
    ...listening("agent", Descriptor.agent),
    ...listening("share", Descriptor.share),
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

/** QOM path of a disk slot's device. */
export function diskDevice(slot: number): string {
  return `/machine/peripheral/disk${slot}`;
}

function nic(nic: NicBackend, index: number): string[] {
  const id = `net${index}`;
  return [
    ...["-netdev", netdev(nic, id, index)],
    ...device({
      driver: "virtio-net-device",
      netdev: id,
      // A restored machine's driver has nothing to announce. Without announcements (device-state.ts) QEMU 7.2
      // has no timer for them, and crashes when the guest resets a device that could make them.
      guest_announce: false,
      // With it the guest has a table of VLANs, and looks through 8,192 entries when it gets an address.
      ctrl_vlan: false,
      // Until the agent gives it the container's.
      mac: `02:00:00:00:00:0${index + 1}`,
    }),
  ];
}

function netdev(nic: NicBackend, id: string, index: number): string {
  switch (nic.kind) {
    case "tap":
      return `tap,id=${id},fd=${tapDescriptor(index)}`;
    case "user":
      return `user,id=${id}`;
    case "hub":
      return `hubport,id=${id},hubid=${index}`;
  }
}

/** The block node of a slot that has no disk. */
export function emptyNode(slot: number): string {
  return `empty${slot}`;
}

/** The first slot is for a read-only disk. */
function diskSlot(slot: number): string[] {
  const nothing = json({
    driver: "null-co",
    "node-name": emptyNode(slot),
    size: SLOT_BYTES,
    "read-zeroes": true,
    "read-only": slot === 0,
  });
  return [
    ...["-blockdev", nothing],
    ...device({
      driver: "virtio-blk-device",
      id: `disk${slot}`,
      drive: emptyNode(slot),
    }),
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
