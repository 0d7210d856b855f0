import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { SystemError } from "../../errors.js";
import type { Descriptor } from "../manifest.js";
import type { Repository } from "../registry/repository.js";
import { RegistryError } from "../registry/errors.js";

/** Attempts in a row that bring nothing, after which a download is given up. */
const MAX_ATTEMPTS = 5;
/** An attempt that brings less than this counts as one that brought nothing. */
const MIN_PROGRESS = 64 * 1024;
/** Statuses of a registry that may go away by themselves. */
const PASSING = [0, 408, 429, 500, 502, 503, 504];

export interface DownloadOptions {
  /** Layers downloaded at the same time, of all pulls together. */
  concurrency: number;
  /** Waited before the n-th retry, in milliseconds. */
  retryDelay: (attempt: number) => number;
}

export const DOWNLOAD_DEFAULTS: DownloadOptions = {
  concurrency: 3,
  retryDelay: (attempt) => attempt * 5000,
};

export type DownloadProgress =
  | { status: "downloading"; current: number; total: number }
  | { status: "retrying"; seconds: number }
  | { status: "verifying" };

/**
 * Fetches a blob into a file, going on where it broke off when the registry allows, and verifies it.
 * Whether it may be used is known only when this has resolved.
 * @throws {SystemError} wrong digest or length
 * @throws {RegistryError} the registry's last error
 */
export async function download(
  repository: Repository,
  blob: Descriptor,
  path: string,
  options: DownloadOptions,
  signal: AbortSignal,
  report: (progress: DownloadProgress) => void,
): Promise<void> {
  const file = await open(path, "w");
  const state: State = { file, written: 0, hash: createHash("sha256") };
  try {
    let attempts = 0;
    let resumed = false;
    for (;;) {
      const before = state.written;
      try {
        await attempt(repository, blob, state, signal, report);
        report({ status: "verifying" });
        if (`sha256:${state.hash.copy().digest("hex")}` === blob.digest) break;
        const mismatch = new SystemError(
          `filesystem layer verification failed for digest ${blob.digest}`,
        );
        // Parts of two attempts may not fit together: once, from the start.
        if (!resumed) throw mismatch;
        resumed = false;
        await restart(state);
        continue;
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof RegistryError)) throw error;
        if (!PASSING.includes(error.status)) throw error;
        if (state.written - before >= MIN_PROGRESS) attempts = 0;
        if (++attempts >= MAX_ATTEMPTS) throw error;
        if (state.written > 0) resumed = true;
        const delay = options.retryDelay(attempts);
        report({ status: "retrying", seconds: Math.ceil(delay / 1000) });
        await sleep(delay, undefined, { signal });
      }
    }
    await file.datasync();
  } finally {
    await file.close();
  }
}

interface State {
  file: FileHandle;
  written: number;
  hash: ReturnType<typeof createHash>;
}

async function restart(state: State): Promise<void> {
  await state.file.truncate(0);
  state.written = 0;
  state.hash = createHash("sha256");
}

async function attempt(
  repository: Repository,
  blob: Descriptor,
  state: State,
  signal: AbortSignal,
  report: (progress: DownloadProgress) => void,
): Promise<void> {
  const { stream, offset } = await repository.blob(
    blob.digest,
    state.written,
    signal,
  );
  try {
    if (offset !== state.written) await restart(state);
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      if (state.written + chunk.length > blob.size) {
        throw new SystemError(
          `blob ${blob.digest} is longer than the ${blob.size} bytes its manifest says`,
        );
      }
      state.hash.update(chunk);
      await save(state, chunk);
      report({
        status: "downloading",
        current: state.written,
        total: blob.size,
      });
    }
  } catch (error) {
    throw error instanceof SystemError ? error : brokenOff(error);
  } finally {
    stream.destroy();
  }
  if (state.written < blob.size) throw brokenOff(new Error("unexpected EOF"));
}

/** Errors of the disk are told apart from those of the registry: asking again would not help. */
async function save(state: State, chunk: Buffer): Promise<void> {
  let done = 0;
  try {
    while (done < chunk.length) {
      const { bytesWritten } = await state.file.write(
        chunk,
        done,
        chunk.length - done,
        state.written + done,
      );
      done += bytesWritten;
    }
  } catch (error) {
    throw new SystemError(
      `cannot store the layer: ${(error as Error).message}`,
      { cause: error },
    );
  }
  state.written += done;
}

function brokenOff(error: unknown): RegistryError {
  return error instanceof RegistryError
    ? error
    : new RegistryError("", (error as Error).message, 0, { cause: error });
}
