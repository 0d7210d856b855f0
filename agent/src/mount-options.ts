/** Mount options as text, taken apart into the flags of mount(2) and the file system's own data. */
import {
  MS_DIRSYNC,
  MS_NOATIME,
  MS_NODEV,
  MS_NODIRATIME,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  MS_RELATIME,
  MS_STRICTATIME,
  MS_SYNCHRONOUS,
} from "./constants.js";

const FLAGS: Record<string, { set?: number; clear?: number }> = {
  defaults: {},
  ro: { set: MS_RDONLY },
  rw: { clear: MS_RDONLY },
  nosuid: { set: MS_NOSUID },
  suid: { clear: MS_NOSUID },
  nodev: { set: MS_NODEV },
  dev: { clear: MS_NODEV },
  noexec: { set: MS_NOEXEC },
  exec: { clear: MS_NOEXEC },
  sync: { set: MS_SYNCHRONOUS },
  async: { clear: MS_SYNCHRONOUS },
  dirsync: { set: MS_DIRSYNC },
  noatime: { set: MS_NOATIME },
  atime: { clear: MS_NOATIME },
  nodiratime: { set: MS_NODIRATIME },
  diratime: { clear: MS_NODIRATIME },
  relatime: { set: MS_RELATIME },
  norelatime: { clear: MS_RELATIME },
  strictatime: { set: MS_STRICTATIME },
};

/** Options of the engine that mean nothing to a file system in a machine of its own. */
const IGNORED = new Set([
  "private",
  "rprivate",
  "shared",
  "rshared",
  "slave",
  "rslave",
  "tmpcopyup",
]);

export function parseMountOptions(options: string[]): {
  flags: number;
  data: string;
} {
  let flags = 0;
  const data: string[] = [];
  for (const option of options) {
    if (option === "" || IGNORED.has(option)) continue;
    const flag = Object.prototype.hasOwnProperty.call(FLAGS, option)
      ? FLAGS[option]
      : undefined;
    if (flag) flags = (flags | (flag.set ?? 0)) & ~(flag.clear ?? 0);
    else data.push(option);
  }
  return { flags, data: data.join(",") };
}
