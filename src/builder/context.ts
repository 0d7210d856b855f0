/**
 * Files a build copies from: the client's context, or another image's. They come as a tar archive and are
 * put aside in one file; names are keys in a list and never paths of this host.
 */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { finished } from "node:stream/promises";
import { once } from "node:events";
import path from "node:path";
import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { extract, type Header, pack } from "tar-stream";
import { decompressUnknown } from "../archive/decompress.js";
import { HullError, InvalidParameter } from "../errors.js";

const BLOCK = 512;
const MAX_ENTRIES = 1_000_000;

export interface ContextFile {
  /** Relative, without "." and "..". */
  name: string;
  header: Partial<Header>;
  /** Where its content is in the file. */
  offset: number;
  size: number;
  /** Of the content. */
  digest: string;
}

/** What is copied, under its new name. */
export interface CopyItem {
  source: ContextFile;
  /** Relative to the root. */
  target: string;
}

export class BuildContext {
  readonly #file: string;
  readonly #files: Map<string, ContextFile>;

  private constructor(file: string, files: Map<string, ContextFile>) {
    this.#file = file;
    this.#files = files;
  }

  /**
   * @param file where contents are put
   * @throws {InvalidParameter} the archive is damaged
   */
  static async read(
    archive: Readable,
    file: string,
    signal: AbortSignal,
  ): Promise<BuildContext> {
    const files = new Map<string, ContextFile>();
    const output = createWriteStream(file, { mode: 0o600 });
    // Told where it is waited for.
    output.on("error", () => undefined);
    const entries = extract();
    try {
      const plain = await decompressUnknown(archive, signal);
      const fed = pipeline(plain.output, padded(), entries, { signal });
      fed.catch(() => undefined);
      let offset = 0;
      let count = 0;
      for await (const entry of entries) {
        if (++count > MAX_ENTRIES) throw new Error("too many files");
        const hash = createHash("sha256");
        const begin = offset;
        for await (const chunk of entry as AsyncIterable<Buffer>) {
          hash.update(chunk);
          offset += chunk.length;
          if (!output.write(chunk)) await once(output, "drain");
        }
        const name = clean(entry.header.name);
        const found = {
          name,
          header: entry.header,
          offset: begin,
          size: offset - begin,
          digest: hash.digest("hex"),
        };
        // A hard link is another name of a file that came before.
        const linked =
          entry.header.type === "link"
            ? files.get(clean(entry.header.linkname ?? ""))
            : undefined;
        if (name !== "") files.set(name, linked ? { ...linked, name } : found);
      }
      await fed;
      await plain.done;
      output.end();
      await finished(output);
    } catch (error) {
      output.destroy();
      signal.throwIfAborted();
      throw error instanceof HullError
        ? error
        : new InvalidParameter(
            `invalid build context: ${(error as Error).message}`,
          );
    }
    return new BuildContext(file, files);
  }

  /**
   * A context of one file.
   * @param file where its content is put
   * @throws what its stream, or the disk, fails with
   */
  static async ofFile(
    name: string,
    content: Readable,
    file: string,
    header: Partial<Header>,
  ): Promise<BuildContext> {
    const hash = createHash("sha256");
    let size = 0;
    const counted = async function* (chunks: AsyncIterable<Buffer>) {
      for await (const chunk of chunks) {
        hash.update(chunk);
        size += chunk.length;
        yield chunk;
      }
    };
    await pipeline(content, counted, createWriteStream(file, { mode: 0o600 }));
    const digest = hash.digest("hex");
    const found = {
      name,
      header: { ...header, type: "file" as const },
      ...{ offset: 0, size, digest },
    };
    return new BuildContext(file, new Map([[name, found]]));
  }

  get(name: string): ContextFile | undefined {
    return this.#files.get(clean(name));
  }

  async text(name: string, limit: number): Promise<string | undefined> {
    const found = this.get(name);
    if (found === undefined || found.size > limit) return undefined;
    const chunks: Buffer[] = [];
    for await (const chunk of this.content(found)) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks).toString("utf8");
  }

  content(file: ContextFile): Readable {
    if (file.size === 0) return Readable.from([]);
    return createReadStream(this.#file, {
      start: file.offset,
      end: file.offset + file.size - 1,
    });
  }

  /** Names that match a pattern of a COPY (Go's filepath.Match, a component at a time). */
  match(pattern: string): string[] {
    const wanted = clean(pattern);
    if (wanted === "") return [""];
    if (!/[*?[\\]/.test(wanted)) return this.#has(wanted) ? [wanted] : [];
    const expression = globExpression(wanted);
    const depth = wanted.split("/").length;
    const names = new Set<string>();
    for (const name of this.#files.keys()) {
      const parts = name.split("/");
      if (parts.length < depth) continue;
      const head = parts.slice(0, depth).join("/");
      if (expression.test(head)) names.add(head);
    }
    return [...names].sort();
  }

  isFolder(name: string): boolean {
    const found = this.#files.get(name);
    return found ? found.header.type === "directory" : true;
  }

  /** What is in a folder, at any depth, in alphabetical order. */
  below(name: string): ContextFile[] {
    const prefix = name === "" ? "" : `${name}/`;
    return [...this.#files.values()]
      .filter((file) => file.name.startsWith(prefix))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #has(name: string): boolean {
    return (
      this.#files.has(name) ||
      [...this.#files.keys()].some((other) => other.startsWith(`${name}/`))
    );
  }

  /** An archive of items under their new names, all of root unless the extraction says otherwise. */
  archive(items: CopyItem[], mode: number | undefined): Readable {
    const archive = pack();
    const write = async (): Promise<void> => {
      for (const { source, target } of items) {
        const { header } = source;
        const own: Partial<Header> & { name: string } = {
          name: target,
          type: header.type ?? "file",
          mode: mode ?? header.mode ?? 0o644,
          uid: 0,
          gid: 0,
          mtime: header.mtime ?? new Date(0),
          ...(header.linkname ? { linkname: header.linkname } : {}),
          ...(header.pax ? { pax: attributesOf(header.pax) } : {}),
          devmajor: header.devmajor ?? 0,
          devminor: header.devminor ?? 0,
        };
        if (own.type !== "file" && own.type !== "contiguous-file") {
          await new Promise<void>((resolve, reject) => {
            archive.entry({ ...own, size: 0 }, (error) =>
              error ? reject(error) : resolve(),
            );
          });
          continue;
        }
        const entry = archive.entry({
          ...own,
          type: "file",
          size: source.size,
        });
        await pipeline(this.content(source), entry);
      }
      archive.finalize();
    };
    write().catch((error: Error) => archive.destroy(error));
    return Readable.from(archive);
  }
}

/** The CLI's archives lack the last file's padding and the end when it adds a Dockerfile to them. */
function padded(): Transform {
  let size = 0;
  return new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      size += chunk.length;
      callback(null, chunk);
    },
    flush(callback) {
      callback(
        null,
        Buffer.alloc(((BLOCK - (size % BLOCK)) % BLOCK) + 2 * BLOCK),
      );
    },
  });
}

/** By which a cached step is found again: all but times. */
export function digestOfItems(items: CopyItem[]): string {
  const hash = createHash("sha256");
  for (const { source, target } of items) {
    const { type, mode, linkname } = source.header;
    hash.update(
      JSON.stringify([target, type, mode, linkname ?? "", source.digest]),
    );
  }
  return hash.digest("hex");
}

/** Extended attributes that are text: the reader takes all of them for that. */
function attributesOf(pax: object): Record<string, string> {
  return Object.fromEntries(
    Object.entries(pax as Record<string, string>).filter(
      ([key, value]) =>
        key.startsWith("SCHILY.xattr.") && !value.includes("\uFFFD"),
    ),
  );
}

/** Relative to the context, which no name leads out of. */
export function clean(name: string): string {
  return path.posix.normalize(`/${name}`).replace(/^\/+|\/+$/g, "");
}

function globExpression(pattern: string): RegExp {
  let source = "";
  for (let i = 0; i < pattern.length; i++) {
    const char = pattern.charAt(i);
    if (char === "*") source += "[^/]*";
    else if (char === "?") source += "[^/]";
    else if (char === "[") {
      const end = pattern.indexOf("]", i + 1);
      if (end < 0) throw new InvalidParameter("syntax error in pattern");
      const set = pattern.slice(i + 1, end).replace(/\\/g, "\\\\");
      source += `[${set}]`;
      i = end;
    } else {
      const next = char === "\\" ? pattern.charAt(++i) : char;
      source += next.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
    }
  }
  try {
    return new RegExp(`^${source}$`);
  } catch {
    throw new InvalidParameter("syntax error in pattern");
  }
}
