/** A stage of a build: what its instructions have made so far. */
import type { Digest } from "../images/digest.js";
import type { ImageConfig } from "../images/index.js";

/** Build arguments that need no ARG (docs.docker.com, "Predefined ARGs"). */
const PREDEFINED = new Set(
  ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"].flatMap(
    (name) => [name, name.toLowerCase()],
  ),
);

export class Stage {
  image: Digest | undefined;
  config: ImageConfig = {};
  author = "";
  /** CMD was given here, after the entrypoint of the base image. */
  ownCommand = false;
  /** A step was done afresh: all that follow are. */
  fresh = false;
  /** Arguments declared in this stage. */
  readonly args = new Map<string, string | undefined>();

  constructor(
    readonly name: string,
    readonly index: number,
  ) {}

  /** Variables of instructions: the image's environment wins over arguments. */
  variables(): Map<string, string> {
    const variables = new Map<string, string>();
    for (const [name, value] of this.args) {
      if (value !== undefined) variables.set(name, value);
    }
    for (const entry of this.config.Env ?? []) {
      const equals = entry.indexOf("=");
      variables.set(entry.slice(0, equals), entry.slice(equals + 1));
    }
    return variables;
  }

  /** Arguments as a RUN's further environment, in alphabetical order. */
  runArguments(buildArgs: ReadonlyMap<string, string>): string[] {
    const env = new Set(
      (this.config.Env ?? []).map((entry) => entry.split("=")[0]),
    );
    const values = new Map<string, string>();
    for (const [name, value] of buildArgs) {
      if (PREDEFINED.has(name)) values.set(name, value);
    }
    for (const [name, value] of this.args) {
      if (value !== undefined && !env.has(name)) values.set(name, value);
    }
    return [...values].map(([name, value]) => `${name}=${value}`).sort();
  }
}

export function isPredefined(name: string): boolean {
  return PREDEFINED.has(name);
}
