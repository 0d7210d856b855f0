/** Instructions that change an image's config only: in a Dockerfile, and for commit and import. */
import path from "node:path";
import { InvalidParameter } from "../errors.js";
import type { ImageConfig } from "../images/index.js";
import { type Instruction, parseDockerfile } from "./parse.js";
import { expand, expandWords, parsePairs, type Variables } from "./words.js";

/** Those that `docker commit --change` and `docker import --change` take. */
const CHANGES = new Set(
  "CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR".split(
    " ",
  ),
);

/**
 * Applies the `changes` of commit or import.
 * @throws {InvalidParameter} one of them is not to be had there, or wrong
 */
export function applyChanges(
  config: ImageConfig,
  changes: readonly string[],
): ImageConfig {
  const text = changes.join("\n");
  if (text.trim() === "") return config;
  const { instructions, escape } = parseDockerfile(text);
  return instructions.reduce((changed, instruction) => {
    if (!CHANGES.has(instruction.keyword)) {
      throw new InvalidParameter(
        `${instruction.keyword.toUpperCase()} is not a valid change command`,
      );
    }
    const variables = environmentOf(changed);
    return applyToConfig(changed, instruction, variables, escape).config;
  }, config);
}

/** The config's environment as variables. */
export function environmentOf(config: ImageConfig): Map<string, string> {
  return new Map(
    (config.Env ?? []).map((entry) => {
      const equals = entry.indexOf("=");
      return [entry.slice(0, equals), entry.slice(equals + 1)];
    }),
  );
}

export const DEFAULT_SHELL = ["/bin/sh", "-c"];

/**
 * @returns the changed config, and how the Engine words the change in an image's history
 * @throws {InvalidParameter}
 */
export function applyToConfig(
  config: ImageConfig,
  instruction: Instruction,
  variables: Variables,
  escape: string,
): { config: ImageConfig; words: string } {
  const { keyword, rest, json } = instruction;
  const words = () => expandWords(rest, variables, escape);
  const value = () => expand(rest, variables, escape);
  switch (keyword) {
    case "ENV": {
      const env = new Map(environmentOf(config));
      const pairs = parsePairs(keyword, rest, escape).map(([name, text]) => [
        expand(name, variables, escape),
        expand(text, variables, escape),
      ]);
      for (const [name = "", text = ""] of pairs) env.set(name, text);
      return {
        config: {
          ...config,
          Env: [...env].map(([name, text]) => `${name}=${text}`),
        },
        words: `ENV ${pairs.map((pair) => pair.join("=")).join(" ")}`,
      };
    }
    case "LABEL": {
      const pairs = parsePairs(keyword, rest, escape).map(
        ([name, text]) =>
          [
            expand(name, variables, escape),
            expand(text, variables, escape),
          ] as const,
      );
      return {
        config: {
          ...config,
          Labels: { ...config.Labels, ...Object.fromEntries(pairs) },
        },
        words: `LABEL ${pairs.map((pair) => pair.join("=")).join(" ")}`,
      };
    }
    case "CMD": {
      const Cmd = json ?? [...(config.Shell ?? DEFAULT_SHELL), rest];
      return { config: { ...config, Cmd }, words: `CMD ${quoted(Cmd)}` };
    }
    case "ENTRYPOINT": {
      const Entrypoint = json ?? [...(config.Shell ?? DEFAULT_SHELL), rest];
      // A command that was not given beside this entrypoint is the base image's.
      const changed = { ...config, Entrypoint };
      delete changed.Cmd;
      return {
        config: changed,
        words: `ENTRYPOINT ${quoted(Entrypoint)}`,
      };
    }
    case "SHELL": {
      if (!json?.length) {
        throw new InvalidParameter(
          "SHELL requires the arguments to be in JSON form",
        );
      }
      return {
        config: { ...config, Shell: json },
        words: `SHELL ${quoted(json)}`,
      };
    }
    case "EXPOSE": {
      const ports = words().map(portOf);
      return {
        config: {
          ...config,
          ExposedPorts: {
            ...config.ExposedPorts,
            ...Object.fromEntries(ports.map((port) => [port, {}])),
          },
        },
        words: `EXPOSE ${ports.join(" ")}`,
      };
    }
    case "VOLUME": {
      const volumes =
        json?.map((one) => expand(one, variables, escape)) ?? words();
      if (volumes.length === 0 || volumes.some((one) => one.trim() === "")) {
        throw new InvalidParameter(
          "VOLUME specified can not be an empty string",
        );
      }
      return {
        config: {
          ...config,
          Volumes: {
            ...config.Volumes,
            ...Object.fromEntries(volumes.map((one) => [one, {}])),
          },
        },
        words: `VOLUME ${quoted(volumes)}`,
      };
    }
    case "USER":
      return { config: { ...config, User: value() }, words: `USER ${value()}` };
    case "WORKDIR": {
      const WorkingDir = path.posix.resolve(config.WorkingDir || "/", value());
      return {
        config: { ...config, WorkingDir },
        words: `WORKDIR ${WorkingDir}`,
      };
    }
    case "STOPSIGNAL": {
      const StopSignal = value();
      if (!/^(SIG)?[A-Z0-9+-]+$/i.test(StopSignal)) {
        throw new InvalidParameter(`invalid signal: ${StopSignal}`);
      }
      return {
        config: { ...config, StopSignal },
        words: `STOPSIGNAL ${StopSignal}`,
      };
    }
    case "ONBUILD": {
      const [, trigger = ""] = /^(\S+)/.exec(rest.trim()) ?? [];
      if (/^(ONBUILD|FROM|MAINTAINER)$/i.test(trigger)) {
        throw new InvalidParameter(
          trigger.toUpperCase() === "ONBUILD"
            ? "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"
            : `${trigger.toUpperCase()} isn't allowed as an ONBUILD trigger`,
        );
      }
      return {
        config: { ...config, OnBuild: [...(config.OnBuild ?? []), rest] },
        words: `ONBUILD ${rest}`,
      };
    }
    case "HEALTHCHECK": {
      const Healthcheck = healthcheck(instruction, config);
      return {
        config: { ...config, Healthcheck },
        words: `HEALTHCHECK ${JSON.stringify(Healthcheck)}`,
      };
    }
    default:
      throw new InvalidParameter(`unknown instruction: ${keyword}`);
  }
}

function healthcheck(
  { rest, flags }: Instruction,
  config: ImageConfig,
): NonNullable<ImageConfig["Healthcheck"]> {
  const [, kind = "", command = ""] = /^(\S+)\s*([\s\S]*)$/.exec(rest) ?? [];
  if (kind.toUpperCase() === "NONE") return { Test: ["NONE"] };
  if (kind.toUpperCase() !== "CMD") {
    throw new InvalidParameter(
      `Unknown type ${JSON.stringify(kind)} in HEALTHCHECK (try CMD)`,
    );
  }
  if (command === "") {
    throw new InvalidParameter("Missing command after HEALTHCHECK CMD");
  }
  let exec: string[] | undefined;
  try {
    const parsed = JSON.parse(command) as unknown;
    if (Array.isArray(parsed)) exec = parsed.map(String);
  } catch {
    exec = undefined;
  }
  const shell = config.Shell ? [...config.Shell, command] : undefined;
  const check: NonNullable<ImageConfig["Healthcheck"]> = {
    Test: exec
      ? ["CMD", ...exec]
      : shell
        ? ["CMD", ...shell]
        : ["CMD-SHELL", command],
  };
  for (const [name, value] of flags) {
    if (name === "interval") check.Interval = duration(name, value);
    else if (name === "timeout") check.Timeout = duration(name, value);
    else if (name === "start-period") check.StartPeriod = duration(name, value);
    else if (name === "start-interval")
      (check as Record<string, unknown>)["StartInterval"] = duration(
        name,
        value,
      );
    else if (name === "retries") {
      const retries = Number(value);
      if (!Number.isInteger(retries) || retries < 0) {
        throw new InvalidParameter(
          `--retries must be at least 0 (not ${value})`,
        );
      }
      check.Retries = retries;
    } else throw new InvalidParameter(`Unknown flag: ${name}`);
  }
  return check;
}

const UNITS: Record<string, number> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** Go's time.ParseDuration, in nanoseconds. */
function duration(name: string, text: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)];
  if (parts.map(([all]) => all).join("") !== text || text === "") {
    throw new InvalidParameter(
      `invalid value for --${name}: time: invalid duration ${JSON.stringify(text)}`,
    );
  }
  const total = parts.reduce(
    (sum, [, number, unit]) => sum + Number(number) * (UNITS[unit ?? ""] ?? 0),
    0,
  );
  if (total !== 0 && total < 1e6) {
    throw new InvalidParameter(`Interval "${name}" cannot be less than 1ms`);
  }
  return Math.round(total);
}

function portOf(text: string): string {
  const match = /^(\d+(?:-\d+)?)(?:\/(tcp|udp|sctp))?$/i.exec(text);
  const inRange = (match?.[1] ?? "")
    .split("-")
    .every((port) => Number(port) <= 65535);
  if (!match || !inRange) {
    throw new InvalidParameter(`invalid containerPort: ${text}`);
  }
  return `${match[1]}/${(match[2] ?? "tcp").toLowerCase()}`;
}

function quoted(words: string[]): string {
  return `[${words.map((word) => JSON.stringify(word)).join(" ")}]`;
}
