import type { Duplex, Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import zlib from "node:zlib";
import { start } from "./child.js";
import { TarError } from "./tar-header.js";

export type Compression = "gzip" | "zstd" | "none";

/** Bytes needed to tell the compression. */
export const MAGIC_BYTES = 6;

/**
 * Tells how a layer is compressed from its first bytes, as Docker does: media types are often wrong.
 * @throws {TarError} a compression layers do not have
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
  if (head.toString("latin1", 0, 3) === "BZh") throw unsupported("bzip2");
  if (head.toString("latin1", 0, 6) === "\xfd7zXZ\0") throw unsupported("xz");
  return "none";
}

const CHUNK = 256 * 1024;

export interface Decompressed {
  output: Readable;
  /** Rejects when the input is not what it should be, or was aborted. */
  done: Promise<void>;
}

/** zstd's decompressor came to node:zlib with node 22.15. */
const { createZstdDecompress } = zlib as unknown as {
  createZstdDecompress?: (options: { chunkSize: number }) => Duplex;
};

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
  if (createZstdDecompress !== undefined) {
    return within(source, createZstdDecompress({ chunkSize: CHUNK }), signal);
  }
  // The zstd program is several times as fast as the decoders in JavaScript and leaves the event loop
  // alone; its own limit bounds the window that a hostile frame may ask for.
  const zstd = start("zstd", ["-dcq", "--memory=128MB"]);
  const onAbort = (): void => {
    zstd.kill();
  };
  signal.addEventListener("abort", onAbort, { once: true });
  const fed = pipeline(source, zstd.stdin, { signal });
  const done = Promise.allSettled([zstd.done, fed]).then(([program, input]) => {
    signal.removeEventListener("abort", onAbort);
    if (program.status === "rejected") throw program.reason;
    if (input.status === "rejected") throw input.reason;
  });
  return { output: zstd.stdout, done };
}

function within(
  source: Readable,
  stream: Duplex,
  signal: AbortSignal,
): Decompressed {
  return { output: stream, done: pipeline(source, stream, { signal }) };
}

function unsupported(compression: string): TarError {
  return new TarError(
    `layers compressed with ${compression} are not supported`,
  );
}
