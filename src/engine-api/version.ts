import { InvalidParameter } from "../errors.js";

/** A version of the Engine API, such as 1.51. */
export class ApiVersion {
  readonly #parts: readonly number[];

  /** @param text digits and dots; what is not a number counts as 0, as the Engine has it */
  constructor(readonly text: string) {
    this.#parts = text.split(".").map((part) => Number(part) || 0);
  }

  /** Whether this version is `other` or newer. */
  atLeast(other: string | ApiVersion): boolean {
    const wanted = typeof other === "string" ? new ApiVersion(other) : other;
    const length = Math.max(this.#parts.length, wanted.#parts.length);
    for (let i = 0; i < length; i++) {
      const difference = (this.#parts[i] ?? 0) - (wanted.#parts[i] ?? 0);
      if (difference !== 0) return difference > 0;
    }
    return true;
  }
}

/** The newest version of the Engine API that is spoken. */
export const MAX_API_VERSION = new ApiVersion("1.51");
/** The oldest one. */
export const MIN_API_VERSION = new ApiVersion("1.24");

/** Splits a request's path into the version it names (if any) and the rest. */
export function splitVersion(path: string): {
  version: ApiVersion | undefined;
  path: string;
} {
  const match = /^\/v([0-9.]+)(\/.*)$/.exec(path);
  if (match === null) return { version: undefined, path };
  return { version: new ApiVersion(match[1] ?? ""), path: match[2] ?? "/" };
}

/**
 * Refuses a version that is not spoken.
 * @throws {InvalidParameter} in the Engine's words
 */
export function checkVersion(version: ApiVersion): void {
  if (!version.atLeast(MIN_API_VERSION)) {
    throw new InvalidParameter(
      `client version ${version.text} is too old. Minimum supported API version is ${MIN_API_VERSION.text}, please upgrade your client to a newer version`,
    );
  }
  if (!MAX_API_VERSION.atLeast(version)) {
    throw new InvalidParameter(
      `client version ${version.text} is too new. Maximum supported API version is ${MAX_API_VERSION.text}`,
    );
  }
}
