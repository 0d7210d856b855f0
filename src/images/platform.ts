import { InvalidParameter, NotFound } from "../errors.js";

/** An operating system and CPU, as in image indexes and `--platform`. */
export interface Platform {
  os: string;
  architecture: string;
  /** e.g. "v7" of arm; "" where there is none. */
  variant: string;
}

const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: "amd64",
  arm64: "arm64",
  arm: "arm",
  ia32: "386",
  ppc64: "ppc64le",
  s390x: "s390x",
  riscv64: "riscv64",
};

/** What containers run on here. */
export const HOST_PLATFORM: Platform = {
  os: "linux",
  architecture: ARCHITECTURES[process.arch] ?? process.arch,
  variant: "",
};

/** Other names of architectures, as containerd's platforms package knows them. */
const ALIASES: Readonly<Record<string, string>> = {
  x86_64: "amd64",
  "x86-64": "amd64",
  aarch64: "arm64",
  armhf: "arm/v7",
  armel: "arm/v6",
  i386: "386",
};
const OS_NAMES = ["linux", "windows", "darwin", "freebsd"];

/**
 * Reads a platform as `--platform` takes it: "os", "architecture", "os/architecture[/variant]".
 * @throws {InvalidParameter} none of these
 */
export function parsePlatform(text: string): Platform {
  const parts = text.toLowerCase().split("/");
  if (parts.length > 3 || parts.some((part) => !/^[a-z0-9_.-]+$/.test(part))) {
    throw new InvalidParameter(
      `${JSON.stringify(text)}: cannot parse platform specifier: invalid argument`,
    );
  }
  const [first = "", second, third = ""] = parts;
  if (second === undefined) {
    if (OS_NAMES.includes(first)) return { ...HOST_PLATFORM, os: first };
    const known = [...Object.values(ARCHITECTURES), ...Object.keys(ALIASES)];
    if (!known.includes(first)) {
      throw new InvalidParameter(
        `${JSON.stringify(text)}: unknown operating system or architecture`,
      );
    }
    return normalised("linux", first, "");
  }
  return normalised(first, second, third);
}

/** "linux/arm64/v8" */
export function formatPlatform(platform: Platform): string {
  const { os, architecture, variant } = platform;
  return [os, architecture, variant].filter((part) => part !== "").join("/");
}

/** A platform with the usual names, and without variants that say nothing. */
export function normalised(
  os: string,
  architecture: string,
  variant: string,
): Platform {
  const [name = "", implied = ""] = (
    Object.hasOwn(ALIASES, architecture)
      ? (ALIASES[architecture] as string)
      : architecture
  ).split("/");
  let own = variant === "" ? implied : variant;
  if (name === "arm64" && own === "v8") own = "";
  if (name === "amd64" && own === "v1") own = "";
  if (name === "arm" && own === "") own = "v7";
  return { os, architecture: name, variant: own };
}

/**
 * How well something made for `offered` runs on `wanted`: 0 is best, undefined not at all.
 * Older variants of arm run on newer ones.
 */
export function suitability(
  wanted: Platform,
  offered: Platform,
): number | undefined {
  if (
    wanted.os !== offered.os ||
    wanted.architecture !== offered.architecture
  ) {
    return undefined;
  }
  if (wanted.variant === offered.variant) return 0;
  if (wanted.architecture !== "arm") return undefined;
  const difference = level(wanted.variant) - level(offered.variant);
  return difference > 0 ? difference : undefined;
}

function level(variant: string): number {
  return Number(/^v(\d)$/.exec(variant)?.[1] ?? Number.NaN);
}

/**
 * Compares an image's platform with the one asked for, or with the host's when none was.
 * @param reference the image as the user named it
 * @returns a warning in Docker's words, or undefined when all is well
 * @throws {NotFound} a platform was asked for and the image has another one
 * @throws {InvalidParameter} what was asked for is no platform
 */
export function platformWarning(
  reference: string,
  image: { os: string; architecture: string },
  asked: string | undefined,
): string | undefined {
  const own = normalised(image.os, image.architecture, "");
  const wanted = asked ? parsePlatform(asked) : HOST_PLATFORM;
  if (wanted.os === own.os && wanted.architecture === own.architecture) {
    return undefined;
  }
  const [ownText, wantedText] = [own, wanted].map(formatPlatform);
  if (asked) {
    throw new NotFound(
      `image with reference ${reference} was found but its platform (${ownText}) does not match the specified platform (${wantedText})`,
    );
  }
  return `The requested image's platform (${ownText}) does not match the detected host platform (${wantedText}) and no specific platform was requested`;
}
