import { type Duplex, PassThrough, type Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import zlib from "node:zlib";
import { start } from "./child.js";

export type Compression = "gzip" | "zstd" | "bzip2" | "xz" | "none";

/** Bytes needed to tell the compression. */
export const MAGIC_BYTES = 6;

/**
 * Tells how an archive is compressed from its first bytes, as Docker does: media types are often wrong.
 */
export function detectCompression(head: Buffer): Compression {
  if (head.length >= 3 && head.readUIntBE(0, 3) === 0x1f8b08) return "gzip";
  if (head.length >= 4) {
    const magic = head.readUInt32LE(0);
    // The second range: skippable frames, which zstd streams may begin with.
    if (magic === 0xfd2fb528 || (magic & 0xfffffff0) >>> 0 === 0x184d2a50) {
      return "zstd";
    }
  }
  if (head.toString("latin1", 0, 3) === "BZh") return "bzip2";
  if (head.toString("latin1", 0, 6) === "\xfd7zXZ\0") return "xz";
  return "none";
}

const CHUNK = 256 * 1024;

/**
 * Programs are several times as fast as the decoders in JavaScript and leave the event loop alone; their
 * own limits bound the window that a hostile frame may ask for.
 */
const PROGRAMS: Record<
  Exclude<Compression, "gzip" | "none">,
  [string, string[]]
> = {
  zstd: ["zstd", ["-dcq", "--memory=128MB"]],
  bzip2: ["bzip2", ["-dc"]],
  xz: ["xz", ["-dcq", "--memlimit-decompress=256MiB"]],
};

export interface Decompressed {
  output: Readable;
  /** Rejects when the input is not what it should be, or was aborted. */
  done: Promise<void>;
}

/** zstd's decompressor came to node:zlib with node 22.15. */
const { createZstdDecompress } = zlib as unknown as {
  createZstdDecompress?: (options: { chunkSize: number }) => Duplex;
};

/**
 * Tells the compression of a stream from its beginning, and decompresses it.
 * @throws the stream's own error
 */
export async function decompressUnknown(
  source: Readable,
  signal: AbortSignal,
): Promise<Decompressed> {
  const chunks: Buffer[] = [];
  let length = 0;
  const whole = new PassThrough({ highWaterMark: CHUNK });
  const iterator = source[Symbol.asyncIterator]() as AsyncIterator<
    Buffer,
    undefined
  >;
  while (length < MAGIC_BYTES) {
    const { done, value } = await iterator.next();
    if (done === true) break;
    chunks.push(value);
    length += value.length;
  }
  const fed = pipeline(rest(chunks, iterator), whole, { signal });
  fed.catch(() => undefined);
  const { output, done } = decompress(
    whole,
    detectCompression(Buffer.concat(chunks)),
    signal,
  );
  // Whoever reads it may come later than its failure, which `done` tells.
  output.on("error", () => undefined);
  const both = Promise.all([fed, done]).then(() => undefined);
  both.catch(() => undefined);
  return { output, done: both };
}

async function* rest(
  chunks: Buffer[],
  iterator: AsyncIterator<Buffer, undefined>,
): AsyncGenerator<Buffer> {
  yield* chunks;
  for (;;) {
    const { done, value } = await iterator.next();
    if (done === true) return;
    yield value;
  }
}

/** Decompresses a stream. Memory is bounded whatever the input says. */
export function decompress(
  source: Readable,
  compression: Compression,
  signal: AbortSignal,
): Decompressed {
  if (compression === "none")
    return { output: source, done: Promise.resolve() };
  if (compression === "gzip") {
    return within(source, zlib.createGunzip({ chunkSize: CHUNK }), signal);
  }
  if (compression === "zstd" && createZstdDecompress !== undefined) {
    return within(source, createZstdDecompress({ chunkSize: CHUNK }), signal);
  }
  const program = start(...PROGRAMS[compression]);
  const onAbort = (): void => {
    program.kill();
  };
  signal.addEventListener("abort", onAbort, { once: true });
  const fed = pipeline(source, program.stdin, { signal });
  // Node drops what a program that has ended wrote, where nobody has begun to read it.
  const output = new PassThrough({ highWaterMark: CHUNK });
  pipeline(program.stdout, output).catch(() => undefined);
  const done = Promise.allSettled([program.done, fed]).then(
    ([ended, input]) => {
      signal.removeEventListener("abort", onAbort);
      if (ended.status === "rejected") throw ended.reason;
      if (input.status === "rejected") throw input.reason;
    },
  );
  return { output, done };
}

function within(
  source: Readable,
  stream: Duplex,
  signal: AbortSignal,
): Decompressed {
  return { output: stream, done: pipeline(source, stream, { signal }) };
}
