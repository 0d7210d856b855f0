/** The daemon's configuration: flags, the config file, and defaults, in this order. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import path from "node:path";
import { Command, Option } from "commander";
import type { z } from "zod";
import { PRODUCTS } from "./installation.js";
import {
  FLAGS,
  isList,
  Settings,
  type SettingName,
  type Settings as SettingValues,
} from "./settings.js";

/** The configuration is wrong; the message says which setting and where it was made. */
export class ConfigError extends Error {}

/** Every setting with a value, but for those that mean "none" when missing. */
export type Config = Required<Omit<SettingValues, OptionalSetting>> &
  Pick<SettingValues, OptionalSetting>;
type OptionalSetting =
  | "group"
  | "pidfile"
  | "bip"
  | "tlscacert"
  | "tlscert"
  | "tlskey"
  | "metrics-addr"
  | "log-format";

/** What the command line asks for. */
export interface Invocation {
  config: Config;
  /** The config file that was read. */
  configFile: string | undefined;
  /** Check the configuration and end. */
  validate: boolean;
  /** `hulld trace`: show how this container was started, asking the daemon at `host`, and end. */
  trace: { container: string; host: string } | undefined;
}

/**
 * Reads the command line (without node and script) and the config file it names.
 * @throws {ConfigError} with what is wrong
 * @throws {CommanderError} --help, --version, or a flag that does not exist
 */
export function readInvocation(
  argv: readonly string[],
  version: string,
  env: NodeJS.ProcessEnv = process.env,
  uid: number = process.getuid?.() ?? 0,
): Invocation {
  const places = defaultPlaces(env, uid);
  const defaults = defaultConfig(places);
  const program = new Command("hulld")
    .description(
      "hull's daemon: the Docker Engine API, with every container in a micro-VM of its own",
    )
    .version(`hulld version ${version}`, "-v, --version")
    .option(
      "--config-file <file>",
      `settings in JSON, named as in Docker's daemon.json (default: ${places.configFile})`,
    )
    .option("--validate", "check the configuration and end")
    .helpCommand(false)
    .allowExcessArguments(false)
    .configureHelp({ helpWidth: 100 })
    .exitOverride()
    .action(() => undefined);
  let traced: string | undefined;
  program
    .command("trace")
    .description(
      "ask the daemon (of -H, else DOCKER_HOST, else the configured host) where the time of a container's last start went",
    )
    .argument("<container>")
    .exitOverride()
    .action((container: string) => {
      traced = container;
    });
  const options = new Map<SettingName, Option>();
  for (const { setting, flags, description } of FLAGS) {
    const value = shownDefault(setting, defaults);
    const option = new Option(
      flags,
      value === undefined ? description : `${description} (default: ${value})`,
    );
    if (isList(setting)) option.argParser(append);
    options.set(setting, option);
    program.addOption(option);
  }
  program.parse(argv, { from: "user" });
  const given = program.opts<Record<string, unknown>>();

  const values: Record<string, unknown> = {};
  for (const [setting, option] of options) {
    const value = given[option.attributeName()];
    if (value !== undefined) values[setting] = value;
  }
  const flags = check(
    values,
    (name) => options.get(name as SettingName)?.long ?? name,
  );
  const named = given["configFile"];
  const { file, settings } = readFile(
    typeof named === "string" ? named : undefined,
    places.configFile,
  );
  // Of a command's flags none is a setting.
  if (traced === undefined) refuseConflicts(flags, settings, file);
  const config = { ...defaults, ...settings, ...flags };
  checkTogether(config);
  return {
    config,
    configFile: file,
    validate: given["validate"] === true,
    trace:
      traced === undefined
        ? undefined
        : {
            container: traced,
            host:
              flags.hosts?.[0] ?? (env["DOCKER_HOST"] || config.hosts[0] || ""),
          },
  };
}

interface Places {
  configFile: string;
  dataRoot: string;
  execRoot: string;
  socket: string;
}

/** Where things lie by default: the system's folders for root, the user's own for others. */
function defaultPlaces(env: NodeJS.ProcessEnv, uid: number): Places {
  if (uid === 0) {
    return {
      configFile: "/etc/hull/hulld.json",
      dataRoot: "/var/lib/hull",
      execRoot: "/run/hull",
      socket: "/run/hull.sock",
    };
  }
  const home = env["HOME"] ?? homedir();
  const runtime = env["XDG_RUNTIME_DIR"] ?? `/tmp/hull-${uid}`;
  const data = env["XDG_DATA_HOME"] ?? path.join(home, ".local/share");
  const config = env["XDG_CONFIG_HOME"] ?? path.join(home, ".config");
  return {
    configFile: path.join(config, "hull/hulld.json"),
    dataRoot: path.join(data, "hull"),
    execRoot: path.join(runtime, "hull"),
    socket: path.join(runtime, "hull.sock"),
  };
}

function defaultConfig(places: Places): Config {
  return {
    "data-root": places.dataRoot,
    "exec-root": places.execRoot,
    hosts: [`unix://${places.socket}`],
    accel: "auto",
    templates: "on",
    warm: 2,
    zygote: "on",
    memory: 512 * 1024 ** 2,
    cpus: 1,
    "disk-size": 10 * 1024 ** 3,
    kernel: PRODUCTS.kernel,
    "kernel-parameters": "",
    kernels: {},
    initramfs: PRODUCTS.initramfs,
    "network-mode": "auto",
    bridge: "hull0",
    mtu: 1500,
    dns: [],
    "dns-search": [],
    "dns-opts": [],
    "insecure-registries": [],
    "registry-mirrors": [],
    "max-concurrent-downloads": 3,
    "max-layer-size": 64 * 1024 ** 3,
    "max-layer-entries": 1_000_000,
    "max-connections": 10_000,
    labels: [],
    tlsverify: false,
    "unsafe-plain-tcp": false,
    // Above what systemd gives to containers; see https://systemd.io/UIDS-GIDS.
    "first-machine-uid": 0x70000000,
    "cgroup-parent": "/hull",
    "unsafe-unconfined-machines": false,
    debug: false,
    "log-level": "info",
  };
}

function shownDefault(name: SettingName, defaults: Config): string | undefined {
  if (name === "memory") return "512m";
  if (name === "disk-size") return "10g";
  if (name === "max-layer-size") return "64g";
  const value = defaults[name];
  if (value === undefined || value === false || value === "") return undefined;
  if (typeof value === "object" && !Array.isArray(value)) return undefined;
  if (Array.isArray(value)) return value.length > 0 ? value[0] : undefined;
  return String(value);
}

function append(value: string, previous: string[] | undefined): string[] {
  return [...(previous ?? []), value];
}

/** @throws {ConfigError} naming the setting as `nameOf` calls it */
function check(
  values: unknown,
  nameOf: (setting: string) => string,
): SettingValues {
  const parsed = Settings.safeParse(values);
  if (parsed.success) return parsed.data;
  throw new ConfigError(describe(parsed.error, nameOf));
}

function describe(
  error: z.ZodError,
  nameOf: (setting: string) => string,
): string {
  const [issue] = error.issues;
  if (issue === undefined) return "invalid configuration";
  if (issue.code === "unrecognized_keys") {
    return `the following directives don't match any configuration option: ${issue.keys.join(", ")}`;
  }
  const problem = issue.message.replace(/^Invalid (input|option): /, "");
  const [setting] = issue.path;
  return setting === undefined
    ? problem
    : `invalid value for ${nameOf(String(setting))}: ${problem}`;
}

function readFile(
  named: string | undefined,
  fallback: string,
): { file: string | undefined; settings: SettingValues } {
  const file = named ?? fallback;
  let content: string;
  try {
    content = readFileSync(file, "utf8");
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (named === undefined && code === "ENOENT") {
      return { file: undefined, settings: {} };
    }
    throw new ConfigError(`cannot read the config file ${file}: ${message}`);
  }
  if (content.trim() === "") return { file, settings: {} };
  let values: unknown;
  try {
    values = JSON.parse(content);
  } catch (error) {
    throw new ConfigError(
      `the config file ${file} is not JSON: ${(error as Error).message}`,
    );
  }
  try {
    return { file, settings: check(values, (name) => `"${name}"`) };
  } catch (error) {
    throw new ConfigError(
      `unable to configure the daemon with file ${file}: ${(error as Error).message}`,
    );
  }
}

/** A setting made in both places is refused, even with the same value: which one is meant? */
function refuseConflicts(
  flags: SettingValues,
  settings: SettingValues,
  file: string | undefined,
): void {
  const both = (Object.keys(flags) as SettingName[])
    .filter((name) => settings[name] !== undefined)
    .map(
      (name) =>
        `${name}: (from flag: ${show(flags[name])}, from file: ${show(settings[name])})`,
    );
  if (both.length === 0) return;
  throw new ConfigError(
    `unable to configure the daemon with file ${file}: the following directives are specified both as a flag and in the configuration file: ${both.join(", ")}`,
  );
}

function show(value: SettingValues[SettingName]): string {
  if (Array.isArray(value)) return `[${value.join(" ")}]`;
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** What one setting asks of another. */
function checkTogether(config: Config): void {
  if (config.hosts.length === 0) {
    throw new ConfigError(
      "invalid value for hosts: the daemon has to listen somewhere",
    );
  }
  if (!config.tlsverify) return;
  for (const name of ["tlscacert", "tlscert", "tlskey"] as const) {
    if (config[name] === undefined) {
      throw new ConfigError(`--tlsverify needs --${name}`);
    }
  }
}
