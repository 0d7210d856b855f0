import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { decompressUnknown } from "./decompress.js";

const WORDS = Buffer.from("some words that are packed, and read much later\n");

for (const program of ["xz", "bzip2", "gzip"]) {
  test(`what ${program} packed is whole, also for a reader who comes late`, async () => {
    const packed = execFileSync(program, ["-c"], { input: WORDS });
    const { output, done } = await decompressUnknown(
      Readable.from([packed]),
      new AbortController().signal,
    );
    // The program has ended by now.
    await Promise.race([done, delay(500)]);
    assert.deepEqual(await buffer(output), WORDS);
    await done;
  });
}
