/** Linux capabilities by name, as in linux/capability.h; the place is the number. */
import { SPAWN_DEFAULTS } from "../../protocol/index.js";
import { Failure } from "./failure.js";

export const CAPABILITIES: readonly string[] = [
  "CHOWN",
  "DAC_OVERRIDE",
  "DAC_READ_SEARCH",
  "FOWNER",
  "FSETID",
  "KILL",
  "SETGID",
  "SETUID",
  "SETPCAP",
  "LINUX_IMMUTABLE",
  "NET_BIND_SERVICE",
  "NET_BROADCAST",
  "NET_ADMIN",
  "NET_RAW",
  "IPC_LOCK",
  "IPC_OWNER",
  "SYS_MODULE",
  "SYS_RAWIO",
  "SYS_CHROOT",
  "SYS_PTRACE",
  "SYS_PACCT",
  "SYS_ADMIN",
  "SYS_BOOT",
  "SYS_NICE",
  "SYS_RESOURCE",
  "SYS_TIME",
  "SYS_TTY_CONFIG",
  "MKNOD",
  "LEASE",
  "AUDIT_WRITE",
  "AUDIT_CONTROL",
  "SETFCAP",
  "MAC_OVERRIDE",
  "MAC_ADMIN",
  "SYSLOG",
  "WAKE_ALARM",
  "BLOCK_SUSPEND",
  "AUDIT_READ",
  "PERFMON",
  "BPF",
  "CHECKPOINT_RESTORE",
];

const NUMBERS = new Map(CAPABILITIES.map((name, number) => [name, number]));

/**
 * Numbers of the named capabilities.
 * @throws {Failure} `invalid` for an unknown name
 */
export function capabilityNumbers(names: readonly string[]): Set<number> {
  const numbers = new Set<number>();
  for (const name of names) {
    const number = NUMBERS.get(name.startsWith("CAP_") ? name.slice(4) : name);
    if (number === undefined)
      throw new Failure(
        "invalid",
        `unknown capability: ${JSON.stringify(name)}`,
      );
    numbers.add(number);
  }
  return numbers;
}

/** A set of numbers as the two 32-bit words capset(2) takes. */
export function capabilityWords(
  numbers: ReadonlySet<number>,
): [number, number] {
  let low = 0;
  let high = 0;
  for (const number of numbers)
    if (number < 32) low |= 1 << number;
    else high |= 1 << (number - 32);
  return [low >>> 0, high >>> 0];
}

/** Capabilities in both ways. */
export interface CapabilitySet {
  readonly numbers: ReadonlySet<number>;
  readonly words: readonly [low: number, high: number];
}

/** @throws {Failure} `invalid` for an unknown name */
export function capabilitySet(names: readonly string[]): CapabilitySet {
  const numbers = capabilityNumbers(names);
  return { numbers, words: capabilityWords(numbers) };
}

/** What processes have that are not said to have others. */
export const DEFAULT_CAPABILITIES = capabilitySet(SPAWN_DEFAULTS.capabilities);
