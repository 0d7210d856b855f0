/**
 * What a container and its processes have where `setup` and `spawn` do not say otherwise: what Docker gives them
 * (moby oci/defaults.go, oci/caps/defaults.go). A message that says only what is different is read in less time.
 */
import type { Setup, Spawn } from "./messages.js";

/** Of {@link Setup}'s fields that need not be there; entropy has none. */
export const SETUP_DEFAULTS = {
  domainname: "",
  machineId: "",
  rootfs: { image: 0, writable: 1, readonly: false },
  mounts: [],
  limits: {},
  sysctls: {},
  shmSize: 64 * 1024 * 1024,
  privileged: false,
  maskedPaths: [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
  ],
  readonlyPaths: [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
  ],
} as const satisfies Optional<Omit<Setup, "entropy">>;

/** Of {@link Spawn}'s; a terminal has none. */
export const SPAWN_DEFAULTS = {
  cwd: "/",
  user: "",
  groups: [],
  stdin: false,
  capabilities: [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
  ],
  noNewPrivileges: false,
  rlimits: [],
  oomScoreAdj: 0,
  init: false,
} as const satisfies Optional<Omit<Spawn, "tty">>;

/** Mode of a file of the engine. */
export const FILE_MODE = 0o644;

/** The optional fields of a message, all of them. */
type Optional<Message> = {
  readonly [
    Field in keyof Message as undefined extends Message[Field] ? Field : never
  ]-?: DeepReadonly<Message[Field]>;
};
type DeepReadonly<Value> = Value extends readonly (infer Item)[]
  ? readonly Item[]
  : Value;
