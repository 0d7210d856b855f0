/** The classic builder: a Dockerfile's instructions one after the other, each with an image of its own. */
import { mkdir, rm } from "node:fs/promises";
import path from "node:path";
import type { Readable } from "node:stream";
import type { ContainerService } from "../containers/service.js";
import { applyToConfig, DEFAULT_SHELL } from "../dockerfile/config.js";
import {
  type Dockerfile,
  type Instruction,
  parseDockerfile,
  parseInstruction,
} from "../dockerfile/parse.js";
import { expand, parsePairs } from "../dockerfile/words.js";
import { InvalidParameter, NotFound } from "../errors.js";
import { faultPoint } from "../fault.js";
import { type Digest, shortId } from "../images/digest.js";
import { platformWarning } from "../images/platform.js";
import { parseReference } from "../images/reference.js";
import type { ImageService } from "../images/service.js";
import { BuildContext } from "./context.js";
import { copyStep } from "./copy.js";
import { type BuildOptions, MAX_DOCKERFILE } from "./options.js";
import { runStep } from "./run.js";
import { isPredefined, Stage } from "./stage.js";

const BUILDKIT =
  "Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled";

export interface BuilderOptions {
  containers: ContainerService;
  images: ImageService;
  /** Folder for contexts. */
  directory: string;
}

/** A step's command ended with another code than 0. */
export class CommandFailed extends InvalidParameter {
  constructor(
    message: string,
    readonly code: number,
  ) {
    super(message);
  }
}

export class Builder {
  readonly #options: BuilderOptions;
  #next = 0;

  private constructor(options: BuilderOptions) {
    this.#options = options;
  }

  /** To be called once a daemon: what an earlier one was building goes. */
  static async open(options: BuilderOptions): Promise<Builder> {
    await rm(options.directory, { recursive: true, force: true });
    await mkdir(options.directory, { recursive: true, mode: 0o700 });
    return new Builder(options);
  }

  /**
   * Builds an image from a context.
   * @param archive a tar archive in any compression
   * @throws {InvalidParameter} {@link CommandFailed} {@link NotFound} a step cannot be done, in Docker's words
   */
  async build(archive: Readable, options: BuildOptions): Promise<Digest> {
    const folder = path.join(
      this.#options.directory,
      `${process.pid}-${this.#next++}`,
    );
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true, mode: 0o700 });
    try {
      const context = await BuildContext.read(
        archive,
        path.join(folder, "context"),
        options.signal,
      );
      faultPoint("build.context-read");
      const text = await context.text(options.dockerfile, MAX_DOCKERFILE);
      if (text === undefined) {
        throw new InvalidParameter(
          `Cannot locate specified Dockerfile: ${options.dockerfile}`,
        );
      }
      const dockerfile = parseDockerfile(text);
      for (const [name, value] of options.labels) {
        const pair = `${JSON.stringify(name)}=${JSON.stringify(value)}`;
        dockerfile.instructions.push(parseInstruction(`LABEL ${pair}`, 0));
      }
      const build = new Build(
        this.#options,
        options,
        dockerfile,
        context,
        folder,
      );
      return await build.run();
    } finally {
      this.#options.images.buildCache.use(options, []);
      await rm(folder, { recursive: true, force: true });
    }
  }
}

/** What a step needs to know. */
export interface StepContext {
  containers: ContainerService;
  images: ImageService;
  options: BuildOptions;
  context: BuildContext;
  stages: Stage[];
  escape: string;
  /** Folder for other contexts. */
  folder: string;
  /** Makes the stage's next image. */
  commit: (step: Step) => Promise<void>;
  /** Whether such a step was done before; its image is the stage's then. */
  cached: (key: string) => Promise<boolean>;
}

/** A step that was done. */
export interface Step {
  words: string;
  key: string;
  layer: Readable | undefined;
}

class Build {
  readonly #services: BuilderOptions;
  readonly #options: BuildOptions;
  readonly #dockerfile: Dockerfile;
  readonly #context: BuildContext;
  readonly #folder: string;
  readonly #stages: Stage[] = [];
  /** Arguments before the first FROM. */
  readonly #globals = new Map<string, string | undefined>();
  readonly #used = new Set<string>();

  constructor(
    services: BuilderOptions,
    options: BuildOptions,
    dockerfile: Dockerfile,
    context: BuildContext,
    folder: string,
  ) {
    this.#services = services;
    this.#options = options;
    this.#dockerfile = dockerfile;
    this.#context = context;
    this.#folder = folder;
  }

  async run(): Promise<Digest> {
    const {
      options: { say, names, signal },
      instructions,
    } = {
      options: this.#options,
      instructions: this.#upToTarget(),
    };
    const total = instructions.length;
    for (const [index, instruction] of instructions.entries()) {
      signal.throwIfAborted();
      say({ stream: `Step ${index + 1}/${total} : ${instruction.original}\n` });
      await this.#step(instruction);
      this.#services.images.buildCache.use(
        this.#options,
        this.#stages.flatMap((stage) => stage.image ?? []),
      );
      const image = this.#stages.at(-1)?.image;
      if (image) say({ stream: ` ---> ${shortId(image)}\n` });
    }
    const image = this.#stages.at(-1)?.image;
    if (image === undefined) {
      throw new InvalidParameter(
        "No image was generated. Is your Dockerfile empty?",
      );
    }
    const unused = [...this.#options.buildArgs.keys()].filter(
      (name) => !this.#used.has(name) && !isPredefined(name),
    );
    if (unused.length > 0) {
      say({
        stream: `[Warning] One or more build-args [${unused.join(" ")}] were not consumed\n`,
      });
    }
    await this.#services.images.buildCache.isResult(image);
    faultPoint("build.made");
    say({ aux: { ID: image } });
    say({ stream: `Successfully built ${shortId(image)}\n` });
    for (const name of names) {
      await this.#services.images.local.name(image, name);
      faultPoint("build.named");
      say({ stream: `Successfully tagged ${name.familiar}\n` });
    }
    return image;
  }

  /** Instructions up to the end of the target stage. */
  #upToTarget(): Instruction[] {
    const { instructions } = this.#dockerfile;
    const { target } = this.#options;
    const first = instructions.find(({ keyword }) => keyword !== "ARG");
    if (first?.keyword !== "FROM") {
      throw new InvalidParameter(
        "no build stage in current context: Please provide a source image with `from` prior to commit",
      );
    }
    if (target === "") return instructions;
    const starts = instructions.flatMap((one, index) =>
      one.keyword === "FROM" ? [index] : [],
    );
    const wanted = starts.findIndex(
      (at, stage) =>
        stageName(instructions[at] as Instruction) === target.toLowerCase() ||
        String(stage) === target,
    );
    if (wanted < 0) {
      throw new InvalidParameter(
        `target stage ${JSON.stringify(target)} could not be found`,
      );
    }
    return instructions.slice(0, starts[wanted + 1] ?? instructions.length);
  }

  async #step(instruction: Instruction): Promise<void> {
    const { keyword } = instruction;
    if (keyword === "FROM") return this.#from(instruction);
    const stage = this.#stages.at(-1);
    if (keyword === "ARG") return this.#arg(instruction, stage);
    if (!stage) throw new InvalidParameter(`${keyword} before FROM`);
    const context = this.#stepContext(stage);
    switch (keyword) {
      case "RUN":
        refuseFlags(instruction, []);
        return runStep(context, stage, instruction);
      case "COPY":
        refuseFlags(instruction, ["from", "chown", "chmod"]);
        return copyStep(context, stage, instruction);
      case "ADD":
        refuseFlags(instruction, ["chown", "chmod"]);
        return copyStep(context, stage, instruction);
      case "MAINTAINER":
        stage.author = instruction.rest;
        return this.#configured(stage, `MAINTAINER ${instruction.rest}`);
      default: {
        const { config, words } = applyToConfig(
          stage.config,
          instruction,
          stage.variables(),
          this.#dockerfile.escape,
        );
        // A command given in this stage outlives a later entrypoint.
        if (keyword === "CMD") stage.ownCommand = true;
        stage.config =
          keyword === "ENTRYPOINT" && stage.ownCommand && stage.config.Cmd
            ? { ...config, Cmd: stage.config.Cmd }
            : config;
        return this.#configured(stage, words);
      }
    }
  }

  async #configured(stage: Stage, words: string): Promise<void> {
    const { commit, cached } = this.#stepContext(stage);
    if (await cached(words)) return;
    await commit({
      words: `/bin/sh -c #(nop)  ${words}`,
      key: words,
      layer: undefined,
    });
  }

  #stepContext(stage: Stage): StepContext {
    const { containers, images } = this.#services;
    return {
      containers,
      images,
      options: this.#options,
      context: this.#context,
      stages: this.#stages,
      escape: this.#dockerfile.escape,
      folder: this.#folder,
      cached: (key) => this.#cached(stage, key),
      commit: (step) => this.#commit(stage, step),
    };
  }

  async #cached(stage: Stage, key: string): Promise<boolean> {
    const { images } = this.#services;
    if (this.#options.noCache || stage.fresh) return false;
    const image = images.local.built(stage.image, key);
    if (image === undefined) {
      stage.fresh = true;
      return false;
    }
    stage.image = image;
    this.#options.say({ stream: " ---> Using cache\n" });
    stage.config = (await images.get(image)).config;
    return true;
  }

  async #commit(stage: Stage, { words, key, layer }: Step): Promise<void> {
    stage.image = await this.#services.images.local.make({
      parent: stage.image,
      layer,
      config: stage.config,
      author: stage.author,
      comment: "",
      createdBy: words,
      name: undefined,
      buildKey: key,
      signal: this.#options.signal,
    });
  }

  async #from(instruction: Instruction): Promise<void> {
    refuseFlags(instruction, ["platform"]);
    const [text = "", as, name = ""] = instruction.rest.split(/\s+/);
    if (as !== undefined && as.toLowerCase() !== "as") {
      throw new InvalidParameter(
        "FROM requires either one argument, or three: FROM <source> [as <name>]",
      );
    }
    const globals = new Map<string, string>();
    for (const [key, value] of this.#globals) {
      if (value !== undefined) globals.set(key, value);
    }
    const { escape } = this.#dockerfile;
    const source = expand(text, globals, escape);
    if (source === "") {
      throw new InvalidParameter(`base name (${text}) should not be blank`);
    }
    const platform = expand(
      instruction.flags.find(([flag]) => flag === "platform")?.[1] ?? "",
      globals,
      escape,
    );
    const stage = new Stage(name.toLowerCase(), this.#stages.length);
    const earlier = this.#stages.find(
      (one) => one.name !== "" && one.name === source.toLowerCase(),
    );
    if (earlier) {
      stage.image = earlier.image;
      stage.config = earlier.config;
    } else if (source === "scratch") {
      stage.image = await this.#services.images.local.make({
        parent: undefined,
        layer: undefined,
        config: {},
        author: "",
        comment: "",
        createdBy: "",
        name: undefined,
        buildKey: "FROM scratch",
        signal: this.#options.signal,
      });
    } else {
      const image = await baseImage(
        this.#services.images,
        source,
        platform || this.#options.platform,
        this.#options,
      );
      stage.image = image.id as Digest;
      stage.config = image.config;
    }
    this.#stages.push(stage);
    await this.#triggers(stage);
  }

  /** ONBUILD of the base image. */
  async #triggers(stage: Stage): Promise<void> {
    const triggers = stage.config.OnBuild ?? [];
    if (triggers.length === 0) return;
    const config = { ...stage.config };
    delete config.OnBuild;
    stage.config = config;
    const { say } = this.#options;
    say({
      stream: `# Executing ${triggers.length} build trigger${triggers.length > 1 ? "s" : ""}\n`,
    });
    for (const trigger of triggers) {
      await this.#step(parseInstruction(trigger, 0));
    }
  }

  #arg({ rest }: Instruction, stage: Stage | undefined): Promise<void> {
    const { buildArgs } = this.#options;
    const { escape } = this.#dockerfile;
    const variables = stage?.variables() ?? new Map<string, string>();
    for (const pair of rest.includes("=")
      ? parsePairs("ARG", rest.replace(/^([^\s=]+)(\s|$)/, "$1=$2"), escape)
      : rest.split(/\s+/).map((name) => [name, undefined] as const)) {
      const [name, text] = pair;
      const given = buildArgs.get(name);
      this.#used.add(name);
      const value =
        given ??
        (text === undefined
          ? stage && this.#globals.get(name)
          : expand(text, variables, escape));
      (stage?.args ?? this.#globals).set(name, value);
      if (value !== undefined) variables.set(name, value);
    }
    return Promise.resolve();
  }
}

/** An image to build on or copy from, pulled where it is not there. */
export async function baseImage(
  images: ImageService,
  source: string,
  platform: string,
  { pull, credentials, say, signal }: BuildOptions,
) {
  if (!pull) {
    try {
      const image = await images.get(source);
      platformWarning(source, image, platform);
      return image;
    } catch (error) {
      if (!(error instanceof NotFound)) throw error;
    }
  }
  const reference = parseReference(source).withDefaultTag();
  await images.pull(reference, {
    platform,
    credentials: credentials(reference.domain),
    progress: say,
    signal,
  });
  return images.get(source);
}

function stageName({ rest }: Instruction): string {
  return (/\sas\s+(\S+)\s*$/i.exec(rest)?.[1] ?? "").toLowerCase();
}

/** Flags that only BuildKit knows are refused in Docker's words. */
function refuseFlags({ flags, keyword }: Instruction, known: string[]): void {
  for (const [name] of flags) {
    if (known.includes(name)) continue;
    if (
      /^(mount|network|security|link|parents|exclude|checksum|keep-git-dir)$/.test(
        name,
      )
    ) {
      throw new InvalidParameter(
        `the --${name} option requires BuildKit. ${BUILDKIT}`,
      );
    }
    throw new InvalidParameter(`unknown flag: ${name} (${keyword})`);
  }
}

/** The command line of a RUN, CMD or ENTRYPOINT. */
export function commandOf(stage: Stage, { json, rest }: Instruction): string[] {
  return json ?? [...(stage.config.Shell ?? DEFAULT_SHELL), rest];
}
