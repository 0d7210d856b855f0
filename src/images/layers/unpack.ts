import { createHash } from "node:crypto";
import { open, rm } from "node:fs/promises";
import { type Readable, Transform, type TransformCallback } from "node:stream";
import { pipeline } from "node:stream/promises";
import { SystemError } from "../../errors.js";
import { faultPoint } from "../../fault.js";
import type { Digest } from "../digest.js";
import {
  type Compression,
  decompress,
  detectCompression,
  MAGIC_BYTES,
} from "../../archive/decompress.js";
import { type Erofs, sealErofs } from "./erofs.js";
import { LayerFilter, type LayerLimits } from "./layer-filter.js";
import { TarError } from "./tar-header.js";

const READ_CHUNK = 256 * 1024;

export interface UnpackRequest {
  /** The layer as it came, verified against its own digest before. */
  blob: string;
  /** Digest of the uncompressed archive that the image config promises. */
  diffId: Digest;
  /** Where the file system is made; gone again when this fails. */
  output: string;
  /** Folder for the file system maker's own files. */
  temporary: string;
  limits: LayerLimits;
  signal: AbortSignal;
  /** Bytes of the blob read so far. */
  onProgress: (bytes: number) => void;
}

export interface UnpackedLayer {
  /** Length of the EROFS image. */
  bytes: number;
  /** Sum of the sizes of the files in it. */
  contentBytes: number;
  /** Nothing of the layers below is visible. */
  opaqueRoot: boolean;
}

/**
 * Makes a layer's EROFS image, once, from its blob: decompressed, sanitised and verified on the way.
 * @throws {SystemError} "failed to register layer: …"; nothing is left at `output`
 */
export async function unpackLayer(
  erofs: Erofs,
  request: UnpackRequest,
): Promise<UnpackedLayer> {
  try {
    return await unpack(erofs, request);
  } catch (error) {
    await rm(request.output, { force: true });
    if (request.signal.aborted) throw request.signal.reason;
    const { message } = error as Error;
    throw new SystemError(`failed to register layer: ${message}`, {
      cause: error,
    });
  }
}

async function unpack(
  erofs: Erofs,
  request: UnpackRequest,
): Promise<UnpackedLayer> {
  const file = await open(request.blob, "r");
  const head = Buffer.alloc(MAGIC_BYTES);
  let compression: Compression;
  try {
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    compression = detectCompression(head.subarray(0, bytesRead));
  } catch (error) {
    await file.close();
    throw error;
  }
  const source: Readable = file.createReadStream({
    start: 0,
    highWaterMark: READ_CHUNK,
  });
  let read = 0;
  source.on("data", (chunk: Buffer) => {
    read += chunk.length;
    request.onProgress(read);
  });
  source.pause();

  // Whichever part fails first ends the others.
  const failed = new AbortController();
  const signal = AbortSignal.any([request.signal, failed.signal]);
  const diffId = new Digester();
  const filter = new LayerFilter(request.limits);
  const maker = erofs.layer(request.output, request.temporary);
  maker.stdout.resume();
  const archive = decompress(source, compression, signal);
  const parts = [
    archive.done,
    pipeline(archive.output, diffId, filter, maker.stdin, { signal }),
    maker.done,
  ];
  for (const part of parts) {
    part.catch((error: unknown) => {
      failed.abort(error);
      maker.kill();
    });
  }
  const results = await Promise.allSettled(parts);
  const errors = results.flatMap((result) =>
    result.status === "rejected" ? [result.reason as Error] : [],
  );
  if (errors.length > 0) throw rootCause(errors);
  if (diffId.digest() !== request.diffId) {
    throw new Error("layers from manifest don't match image configuration");
  }
  faultPoint("unpack.made");
  const bytes = await sealErofs(request.output);
  faultPoint("unpack.sealed");
  return {
    bytes,
    contentBytes: filter.contentBytes,
    opaqueRoot: filter.opaqueRoot,
  };
}

/** Of the errors of connected parts: the one that broke the others. */
function rootCause(errors: Error[]): Error {
  const consequence = (error: Error): boolean => {
    const { code } = error as NodeJS.ErrnoException;
    return (
      code === "EPIPE" ||
      code === "ECONNRESET" ||
      code === "ABORT_ERR" ||
      code === "ERR_STREAM_PREMATURE_CLOSE" ||
      / was ended by SIGKILL/.test(error.message)
    );
  };
  return (
    errors.find((error) => error instanceof TarError) ??
    errors.find((error) => !consequence(error)) ??
    (errors[0] as Error)
  );
}

/** Passes bytes on and digests them. */
class Digester extends Transform {
  readonly #hash = createHash("sha256");

  override _transform(
    chunk: Buffer,
    _encoding: BufferEncoding,
    callback: TransformCallback,
  ): void {
    this.#hash.update(chunk);
    callback(null, chunk);
  }

  digest(): Digest {
    return `sha256:${this.#hash.digest("hex")}`;
  }
}
