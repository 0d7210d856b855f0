/** COPY and ADD: files of the context, of another stage or image, or of a URL, into the image. */
import { createHash } from "node:crypto";
import path from "node:path";
import { Readable } from "node:stream";
import { pack } from "tar-stream";
import { decompressUnknown } from "../archive/decompress.js";
import { fetchFile, isUrl } from "../archive/fetch.js";
import type { Container } from "../containers/container.js";
import type { ContainerService } from "../containers/service.js";
import type { Instruction } from "../dockerfile/parse.js";
import { expand, expandWords } from "../dockerfile/words.js";
import { InvalidParameter, NotFound } from "../errors.js";
import { faultPoint } from "../fault.js";
import type { Digest } from "../images/digest.js";
import { baseImage, type StepContext } from "./builder.js";
import {
  BuildContext,
  clean,
  type CopyItem,
  digestOfItems,
} from "./context.js";
import type { Stage } from "./stage.js";

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
/** Bytes that tell a tar archive: its magic is at 257. */
const TAR_HEAD = 512;

export async function copyStep(
  context: StepContext,
  stage: Stage,
  instruction: Instruction,
): Promise<void> {
  const { containers, escape, cached, commit, options } = context;
  const { keyword } = instruction;
  const variables = stage.variables();
  const words =
    instruction.json?.map((word) => expand(word, variables, escape)) ??
    expandWords(instruction.rest, variables, escape);
  if (words.length < 2) {
    throw new InvalidParameter(
      `${keyword} requires at least two arguments, but only one was provided. Destination could not be determined.`,
    );
  }
  const flag = (name: string) =>
    expand(
      instruction.flags.find(([key]) => key === name)?.[1] ?? "",
      variables,
      escape,
    );
  const owner = flag("chown");
  const mode = modeOf(flag("chmod"));
  const dest = words.at(-1) ?? "";
  const patterns = words.slice(0, -1);
  const sources = await sourcesOf(context, stage, flag("from"));
  const urls = patterns.filter((one) => keyword === "ADD" && isUrl(one));
  const found: { from: BuildContext; name: string }[] = [];
  for (const pattern of patterns) {
    if (urls.includes(pattern)) {
      found.push(await download(context, pattern));
      continue;
    }
    const names = sources.match(pattern);
    if (names.length === 0) {
      throw new NotFound(
        `${keyword} failed: file not found in build context or excluded by .dockerignore: stat ${clean(pattern)}: file does not exist`,
      );
    }
    found.push(...names.map((name) => ({ from: sources, name })));
  }
  const folder = dest.endsWith("/") || dest === "." || dest.endsWith("/.");
  if (found.length > 1 && !folder) {
    throw new InvalidParameter(
      `When using ${keyword} with more than one source file, the destination must be a directory and end with a /`,
    );
  }
  const target = path.posix.resolve(stage.config.WorkingDir || "/", dest);
  const parts = found.map(({ from, name }) => ({
    from,
    items: itemsOf(from, name, target, folder),
    isFolder: from.isFolder(name),
    name,
  }));
  const digest = createHash("sha256");
  for (const part of parts) digest.update(digestOfItems(part.items));
  const kind = parts.length === 1 && !parts[0]?.isFolder ? "file" : "multi";
  const shown = `${keyword} ${kind}:${digest.digest("hex")} in ${dest} `;
  const key = JSON.stringify([keyword, shown, owner, mode ?? ""]);
  if (await cached(key)) return;

  const container = await workplace(containers, stage.image);
  try {
    const there = await isFolderIn(context, container, target);
    for (const { from, items, isFolder, name } of parts) {
      const file = from.get(name);
      if (keyword === "ADD" && !isFolder && file && !urls.length) {
        const archive = await archiveIn(from, name, options.signal);
        if (archive) {
          await extract(context, container, target, archive, owner);
          continue;
        }
      }
      // A file goes into a folder that is there already.
      const into =
        there && !folder && !isFolder
          ? itemsOf(from, name, target, true)
          : items;
      const wanted =
        isFolder && !there ? [folderItem(from, name, target), ...into] : into;
      await extract(context, container, "/", from.archive(wanted, mode), owner);
    }
    const layer = await containers.files.layer(container, false);
    await commit({ words: `/bin/sh -c #(nop) ${shown}`, key, layer });
    faultPoint("build.copy-committed");
  } finally {
    await containers.remove(container, true, true).catch(() => undefined);
  }
}

/** A container for the sake of an image's files, which never runs. */
function workplace(
  containers: ContainerService,
  image: Digest | undefined,
): Promise<Container> {
  return containers.create(
    {
      Image: image,
      Entrypoint: [""],
      Cmd: ["/"],
      HostConfig: { NetworkMode: "none" },
    },
    undefined,
    undefined,
    true,
  );
}

/** Extracts; an archive's folder is made where it is missing. */
async function extract(
  { containers }: StepContext,
  container: Container,
  at: string,
  archive: Readable,
  owner: string,
): Promise<void> {
  if (at !== "/") {
    const folder = pack();
    folder.entry({ name: at.slice(1), type: "directory", mode: 0o755 });
    folder.finalize();
    const found = await containers.files
      .stat(container, `${at}/.`)
      .catch(() => undefined);
    if (!found)
      await containers.files.extract(container, "/", Readable.from(folder), {
        owner: "",
        keepKinds: true,
      });
  }
  await containers.files.extract(container, at, archive, {
    owner,
    keepKinds: at === "/",
  });
}

function itemsOf(
  from: BuildContext,
  name: string,
  target: string,
  into: boolean,
): CopyItem[] {
  const base = target.replace(/^\//, "");
  const join = (...parts: string[]) => parts.filter(Boolean).join("/");
  if (from.isFolder(name)) {
    return from.below(name).map((source) => ({
      source,
      target: join(
        base,
        name === "" ? source.name : source.name.slice(name.length + 1),
      ),
    }));
  }
  const source = from.get(name);
  if (!source) return [];
  return [
    { source, target: into ? join(base, path.posix.basename(name)) : base },
  ];
}

function folderItem(
  from: BuildContext,
  name: string,
  target: string,
): CopyItem {
  return {
    source: {
      name,
      header: {
        name,
        type: "directory",
        mode: from.get(name)?.header.mode ?? 0o755,
      },
      offset: 0,
      size: 0,
      digest: "",
    },
    target: target.replace(/^\//, "") || ".",
  };
}

async function isFolderIn(
  { containers }: StepContext,
  container: Container,
  target: string,
): Promise<boolean> {
  try {
    const stat = await containers.files.stat(container, `${target}/.`);
    return (stat.mode & S_IFMT) === S_IFDIR;
  } catch {
    return false;
  }
}

/** Where COPY --from reads: the context, a stage, or another image. */
async function sourcesOf(
  context: StepContext,
  stage: Stage,
  from: string,
): Promise<BuildContext> {
  if (from === "") return context.context;
  const { stages, images, options, containers } = context;
  const earlier = stages.find(
    (one) =>
      one !== stage &&
      (one.name === from.toLowerCase() || String(one.index) === from),
  );
  if (!earlier && /^\d+$/.test(from)) {
    throw new InvalidParameter(
      `invalid from flag value ${from}: refers to a stage that is not there`,
    );
  }
  const image =
    earlier?.image ??
    ((await baseImage(images, from, options.platform, options)).id as Digest);
  const container = await workplace(containers, image);
  try {
    const file = path.join(context.folder, `from-${container.id}`);
    const archive = await containers.files.export(container);
    return await BuildContext.read(archive, file, options.signal);
  } finally {
    await containers.remove(container, true, true).catch(() => undefined);
  }
}

/** The archive in a file, decompressed; nothing when it is none. */
async function archiveIn(
  from: BuildContext,
  name: string,
  signal: AbortSignal,
): Promise<Readable | undefined> {
  const file = from.get(name);
  if (!file || file.size < TAR_HEAD / 8) return undefined;
  const look = async () => {
    const { output, done } = await decompressUnknown(
      from.content(file),
      signal,
    );
    done.catch(() => undefined);
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of output as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      size += chunk.length;
      if (size >= TAR_HEAD) break;
    }
    return Buffer.concat(chunks);
  };
  const head = await look().catch(() => Buffer.alloc(0));
  if (head.toString("latin1", 257, 262) !== "ustar") return undefined;
  return (await decompressUnknown(from.content(file), signal)).output;
}

async function download(
  { folder, options }: StepContext,
  url: string,
): Promise<{ from: BuildContext; name: string }> {
  const name = fileName(url);
  if (name === "") {
    throw new InvalidParameter(`cannot determine filename from url: ${url}`);
  }
  const file = path.join(
    folder,
    `url-${createHash("sha256").update(url).digest("hex")}`,
  );
  try {
    const { body, lastModified } = await fetchFile(url, options.signal);
    const time = Date.parse(lastModified ?? "");
    const mtime = new Date(Number.isNaN(time) ? 0 : time);
    const header = { mode: 0o600, mtime };
    const from = await BuildContext.ofFile(name, body, file, header);
    return { from, name };
  } catch (error) {
    options.signal.throwIfAborted();
    throw new InvalidParameter(
      `ADD failed: ${url}: ${(error as Error).message}`,
    );
  }
}

function fileName(url: string): string {
  try {
    return path.posix.basename(decodeURIComponent(new URL(url).pathname));
  } catch {
    return "";
  }
}

function modeOf(text: string): number | undefined {
  if (text === "") return undefined;
  if (!/^[0-7]{3,4}$/.test(text)) {
    throw new InvalidParameter(
      `invalid chmod parameter: '${text}'. it should be octal string and between 0 and 07777`,
    );
  }
  return parseInt(text, 8);
}
