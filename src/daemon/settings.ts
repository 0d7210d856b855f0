/** Every setting of the daemon: its name in the config file, its flag, and what it may be. */
import { z } from "zod";
import { parseSize } from "./sizes.js";

const text = z.string().min(1, "must not be empty");
const flag = z.boolean();
/** A whole number, or on the command line its digits. */
const integer = (least: number, most: number) =>
  z
    .union([z.number(), z.string().regex(/^\d+$/).transform(Number)], {
      error: "expected a whole number",
    })
    .pipe(z.int().min(least).max(most));
const size = (least: string) =>
  z.union([z.number(), z.string()]).transform((value, context) => {
    const bytes = typeof value === "number" ? value : parseSize(value);
    if (bytes === undefined || !Number.isInteger(bytes)) {
      context.addIssue("expected a size such as 512m or 10g");
      return z.NEVER;
    }
    if (bytes < (parseSize(least) ?? 0)) {
      context.addIssue(`must be at least ${least}`);
      return z.NEVER;
    }
    return bytes;
  });

/** What a kernel's command line gets beside hull's own. */
const kernelParameters = z
  .string()
  .regex(/^[\x20-\x7e]{0,1024}$/, "expected at most 1024 ASCII characters")
  // What follows it would be arguments of the agent.
  .refine((all) => !/(^| )--( |$)/.test(all), "-- ends a kernel's parameters");

/** The names are those of the config file. Where Docker's daemon.json has the setting, they are its. */
export const Settings = z
  .strictObject({
    "data-root": text,
    "exec-root": text,
    hosts: z.array(text),
    group: text,
    pidfile: text,
    accel: z.enum(["auto", "kvm", "tcg"]),
    templates: z.enum(["on", "off"]),
    warm: integer(0, 100),
    zygote: z.enum(["on", "off"]),
    memory: size("64m"),
    cpus: integer(1, 255),
    "disk-size": size("64m"),
    kernel: text,
    "kernel-parameters": kernelParameters,
    kernels: z.record(
      z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$/),
      z.strictObject({
        path: z.string().startsWith("/", "expected an absolute path"),
        parameters: kernelParameters.default(""),
      }),
    ),
    initramfs: text,
    "network-mode": z.enum(["auto", "bridge", "user"]),
    bridge: text,
    bip: text,
    mtu: integer(576, 65535),
    dns: z.array(text),
    "dns-search": z.array(text),
    "dns-opts": z.array(text),
    "insecure-registries": z.array(text),
    "registry-mirrors": z.array(text),
    "max-concurrent-downloads": integer(1, 100),
    "max-layer-size": size("1m"),
    "max-layer-entries": integer(1, 100_000_000),
    "max-connections": integer(10, 1_000_000),
    labels: z.array(z.string().regex(/^[^=]+=/, "expected KEY=VALUE")),
    tlsverify: flag,
    tlscacert: text,
    tlscert: text,
    tlskey: text,
    "unsafe-plain-tcp": flag,
    // Added to a process ID, which has 22 bits.
    "first-machine-uid": integer(1000, 2 ** 32 - 2 - 2 ** 22),
    "cgroup-parent": z
      .string()
      .regex(
        /^\/?[\w:-][\w.:-]*(\/[\w:-][\w.:-]*)*$/,
        "expected NAME or /NAME/NAME",
      ),
    "unsafe-unconfined-machines": flag,
    "metrics-addr": z
      .string()
      .regex(/^(\[[0-9a-fA-F:.]+\]|[^:/\s]+):\d{1,5}$/, "expected HOST:PORT"),
    debug: flag,
    "log-level": z.enum(["debug", "info", "warn", "error", "fatal"]),
    "log-format": z.enum(["text", "json"]),
  })
  .partial();
export type Settings = z.output<typeof Settings>;
export type SettingName = keyof Settings;

/** A setting's flag on the command line. */
export interface Flag {
  setting: SettingName;
  flags: string;
  description: string;
}

function option(
  setting: SettingName,
  flags: string,
  description: string,
): Flag {
  return { setting, flags, description };
}

/** Whether a setting is a list, and its flag therefore repeatable. */
export function isList(setting: SettingName): boolean {
  return Settings.shape[setting].unwrap() instanceof z.ZodArray;
}

/** One flag a setting, in the order `--help` shows them. */
export const FLAGS: readonly Flag[] = [
  option(
    "hosts",
    "-H, --host <url>",
    "listen here: unix:///PATH, tcp://HOST:PORT or fd:// (sockets from systemd); repeatable",
  ),
  option(
    "data-root",
    "--data-root <dir>",
    "images, containers and their disks",
  ),
  option(
    "exec-root",
    "--exec-root <dir>",
    "sockets and state of running machines",
  ),
  option(
    "group",
    "-G, --group <group>",
    "group that may use the Unix socket (default: docker, else hull, where they exist)",
  ),
  option(
    "pidfile",
    "-p, --pidfile <file>",
    "write the daemon's process ID here",
  ),
  option(
    "accel",
    "--accel <auto|kvm|tcg>",
    "how machines run: by hardware, emulated, or found out by a trial boot",
  ),
  option(
    "templates",
    "--templates <on|off>",
    "restore machines from a template instead of booting each",
  ),
  option(
    "warm",
    "--warm <n>",
    "machines of the default size that stand ready, so that a container starts at once; 0: none",
  ),
  option(
    "zygote",
    "--zygote <on|off>",
    "where machines are emulated, fork them from one that has gone through a start",
  ),
  option(
    "memory",
    "--memory <size>",
    "memory of a container's machine when the container has no limit",
  ),
  option(
    "cpus",
    "--cpus <n>",
    "virtual CPUs of a machine when the container says nothing",
  ),
  option(
    "disk-size",
    "--disk-size <size>",
    "size of a container's writable disk (sparse: what is not used takes no space)",
  ),
  option("kernel", "--kernel <file>", "guest kernel (PVH vmlinux)"),
  option(
    "kernel-parameters",
    "--kernel-parameters <text>",
    "what that kernel's command line gets beside hull's own",
  ),
  option(
    "initramfs",
    "--initramfs <file>",
    "initial RAM file system with the guest agent",
  ),
  option(
    "network-mode",
    "--network-mode <auto|bridge|user>",
    "bridge with taps (needs root), QEMU's user network, or whichever the host allows",
  ),
  option(
    "bridge",
    "-b, --bridge <name>",
    "name of the Linux bridge for containers",
  ),
  option(
    "bip",
    "--bip <address/prefix>",
    "the host's address on the bridge, e.g. 172.30.0.1/16",
  ),
  option("mtu", "--mtu <bytes>", "MTU of the containers' networks"),
  option(
    "dns",
    "--dns <address>",
    "resolver for containers instead of the host's; repeatable",
  ),
  option(
    "dns-search",
    "--dns-search <domain>",
    "search domain for containers; repeatable",
  ),
  option(
    "dns-opts",
    "--dns-opt <option>",
    "resolv.conf option for containers; repeatable",
  ),
  option(
    "insecure-registries",
    "--insecure-registry <host|cidr>",
    "registry to be spoken to without verified TLS; repeatable (127.0.0.0/8 always is)",
  ),
  option(
    "registry-mirrors",
    "--registry-mirror <url>",
    "mirror to ask before Docker Hub; repeatable",
  ),
  option(
    "max-concurrent-downloads",
    "--max-concurrent-downloads <n>",
    "layers downloaded at once for each pull",
  ),
  option(
    "max-layer-size",
    "--max-layer-size <size>",
    "refuse image layers that are larger when uncompressed",
  ),
  option(
    "max-layer-entries",
    "--max-layer-entries <n>",
    "refuse image layers with more files",
  ),
  option(
    "max-connections",
    "--max-connections <n>",
    "connections that a listener serves at a time",
  ),
  option(
    "labels",
    "--label <key=value>",
    "label of this daemon, for `docker info`; repeatable",
  ),
  option(
    "tlsverify",
    "--tlsverify",
    "speak TLS on TCP and demand a client certificate signed by --tlscacert",
  ),
  option(
    "tlscacert",
    "--tlscacert <file>",
    "certificate authority of the clients",
  ),
  option("tlscert", "--tlscert <file>", "this daemon's certificate"),
  option("tlskey", "--tlskey <file>", "this daemon's key"),
  option(
    "unsafe-plain-tcp",
    "--unsafe-plain-tcp",
    "allow TCP without TLS: whoever reaches the port controls the host",
  ),
  option(
    "first-machine-uid",
    "--first-machine-uid <uid>",
    "user and group of a machine's process are this and its process ID",
  ),
  option(
    "cgroup-parent",
    "--cgroup-parent <path>",
    "control group that those of the machines are below",
  ),
  option(
    "unsafe-unconfined-machines",
    "--unsafe-unconfined-machines",
    "run QEMU as root among the host's files: a hole in QEMU is a hole in the host",
  ),
  option(
    "metrics-addr",
    "--metrics-addr <host:port>",
    "serve /metrics for Prometheus here, and nothing else",
  ),
  option("debug", "-D, --debug", "log every request and step"),
  option(
    "log-level",
    "-l, --log-level <level>",
    "debug, info, warn, error or fatal",
  ),
  option(
    "log-format",
    "--log-format <text|json>",
    "how the log is written (default: text on a terminal, json elsewhere)",
  ),
];
