/** What a container may ask of its isolation: what has no sense in a machine of its own is refused by name. */
import { InvalidParameter } from "../errors.js";
import type { HostConfig } from "./create-request.js";

type Mode = "PidMode" | "IpcMode" | "UTSMode" | "CgroupnsMode" | "UsernsMode";

/** What each namespace may be; Docker's words for anything else. */
const MODES: Record<Mode, { own: readonly string[]; name: string }> = {
  PidMode: { own: ["", "private"], name: "PID" },
  IpcMode: { own: ["", "private", "shareable"], name: "IPC" },
  UTSMode: { own: ["", "private"], name: "UTS" },
  CgroupnsMode: { own: ["", "private"], name: "cgroup namespace" },
  // Without remapping, which there is none of, the host's is the only one.
  UsernsMode: { own: ["", "host"], name: "USER" },
};

/** @throws {InvalidParameter} naming the field */
export function checkIsolation(host: HostConfig): void {
  for (const field of Object.keys(MODES) as Mode[]) {
    const mode = host[field] ?? "";
    const { own, name } = MODES[field];
    if (own.includes(mode)) continue;
    if (mode === "host" || mode === "none" || mode.startsWith("container:")) {
      throw impossible(`the ${name} mode "${mode}" (HostConfig.${field})`);
    }
    throw new InvalidParameter(`invalid ${name} mode: ${mode}`);
  }
  if (host.Devices?.length)
    throw impossible("host devices (HostConfig.Devices)");
  if (host.DeviceRequests?.length) {
    throw impossible("host devices (HostConfig.DeviceRequests)");
  }
  for (const option of host.SecurityOpt ?? []) checkSecurityOption(option);
}

/** As "name=value", "name:value" or the bare "no-new-privileges" (moby daemon/daemon_unix.go). */
function checkSecurityOption(option: string): void {
  const [, name = "", value = ""] = /^([^=:]*)[=:]?(.*)$/s.exec(option) ?? [];
  switch (name) {
    case "no-new-privileges":
      if (["", "true", "false"].includes(value)) return;
      throw new InvalidParameter(`invalid --security-opt 2: "${option}"`);
    case "seccomp":
    case "apparmor":
      // Nothing of the kind is in force: the machine is the boundary.
      if (value === "unconfined" || value === "builtin") return;
      throw impossible(`a profile of ${name} (HostConfig.SecurityOpt)`);
    case "label":
      if (value === "disable") return;
      throw impossible("labels of SELinux (HostConfig.SecurityOpt)");
    default:
      throw new InvalidParameter(`invalid --security-opt 2: "${option}"`);
  }
}

function impossible(what: string): InvalidParameter {
  return new InvalidParameter(
    `a container in a virtual machine of its own cannot use ${what}`,
  );
}
