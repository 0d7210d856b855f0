/** Linux capabilities of a container's processes, by Docker's rules for --cap-add and --cap-drop. */
import { SPAWN_DEFAULTS } from "../../protocol/index.js";
import { InvalidParameter } from "../errors.js";
import type { HostConfig } from "./create-request.js";

/** All of capabilities(7), in the order of their numbers. */
const ALL = (
  "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE " +
  "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT " +
  "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE " +
  "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ " +
  "PERFMON BPF CHECKPOINT_RESTORE"
).split(" ");

/**
 * The capabilities a container's process gets, without the "CAP_".
 * @throws {InvalidParameter} on a name that is no capability, with Docker's words
 */
export function capabilitiesOf(host: HostConfig): string[] {
  if (host.Privileged) return [...ALL];
  const add = (host.CapAdd ?? []).map((name) => normalise(name, "CapAdd"));
  const drop = (host.CapDrop ?? []).map((name) => normalise(name, "CapDrop"));
  const base = add.includes("ALL")
    ? ALL
    : drop.includes("ALL")
      ? add
      : [...SPAWN_DEFAULTS.capabilities, ...add];
  // An explicit drop wins over "add ALL"; an explicit add wins over "drop ALL".
  const wanted = new Set(base.filter((name) => !drop.includes(name)));
  return ALL.filter((name) => wanted.has(name));
}

function normalise(name: string, field: string): string {
  const bare = name.toUpperCase().replace(/^CAP_/, "");
  if (bare === "ALL" || ALL.includes(bare)) return bare;
  throw new InvalidParameter(
    `invalid ${field}: unknown capability: "CAP_${bare}"`,
  );
}
