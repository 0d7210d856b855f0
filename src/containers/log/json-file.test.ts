import assert from "node:assert/strict";
import {
  appendFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { gunzipSync, gzipSync } from "node:zlib";
import { JsonFileLog, type LogRecord } from "./json-file.js";
import { lastOffsets, readLog, type ReadOptions } from "./reader.js";

let directory: string;
let log: JsonFileLog;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "hull-log-"));
  log = makeLog(Infinity, 1);
});
afterEach(async () => {
  await log.close();
  await log.compressed;
  await rm(directory, { recursive: true });
});

function makeLog(
  maxSize: number,
  maxFiles: number,
  compress = false,
): JsonFileLog {
  const onError = (error: Error) => assert.fail(error);
  return new JsonFileLog(path.join(directory, "x-json.log"), {
    maxSize,
    maxFiles,
    compress,
    onError,
  });
}

const START = { stdout: 0, stderr: 0 };

async function read(options: Partial<ReadOptions> = {}): Promise<LogRecord[]> {
  const records: LogRecord[] = [];
  const signal = new AbortController().signal;
  for await (const record of readLog(
    log,
    { follow: false, ...options },
    signal,
  )) {
    records.push(record);
  }
  return records;
}

test("a line is recorded when it is whole", async () => {
  await log.begin(START);
  assert.equal(await log.append("stdout", Buffer.from("one\ntw")), 4);
  assert.deepEqual(
    (await read()).map((r) => [r.log, r.stream, r.offset]),
    [["one\n", "stdout", 4]],
  );
  assert.equal(await log.append("stdout", Buffer.from("o\n")), 8);
  assert.deepEqual(
    (await read()).map((r) => r.log),
    ["one\n", "two\n"],
  );
});

test("a line without an end is recorded by flush", async () => {
  await log.begin(START);
  await log.append("stderr", Buffer.from("no newline"));
  await log.flush("stderr");
  assert.deepEqual(
    (await read()).map((r) => [r.log, r.offset]),
    [["no newline", 10]],
  );
});

test("a line over 16 KiB is recorded in parts", async () => {
  await log.begin(START);
  const line = Buffer.alloc(40_000, "x");
  line[line.length - 1] = 0x0a;
  await log.append("stdout", line.subarray(0, 20_000));
  await log.append("stdout", line.subarray(20_000));
  assert.deepEqual(
    (await read()).map((r) => r.log.length),
    [16_384, 16_384, 7_232],
  );
});

test("tail counts records over both streams and over rotated files", async () => {
  log = makeLog(200, 3);
  await log.begin(START);
  for (let i = 0; i < 6; i++) {
    await log.append(i % 2 ? "stderr" : "stdout", Buffer.from(`line ${i}\n`));
  }
  assert.ok(log.generation >= 1);
  for (const tail of [0, 1, 2, 3, 4]) {
    const expected = [0, 1, 2, 3, 4, 5].slice(6 - tail);
    assert.deepEqual(
      (await read({ tail })).map((r) => r.log),
      expected.map((i) => `line ${i}\n`),
    );
  }
});

test("rotation keeps only so many files", async () => {
  log = makeLog(100, 2);
  await log.begin(START);
  for (let i = 0; i < 20; i++) {
    await log.append("stdout", Buffer.from(`line ${i}\n`));
  }
  const lines = (await read()).map((r) => r.log);
  assert.equal(lines.at(-1), "line 19\n");
  assert.ok(lines.length < 6 && lines.length > 1);
  await assert.rejects(readFile(`${log.path}.2`), { code: "ENOENT" });
});

test("a follower reads on through a rotation and ends with the run", async () => {
  log = makeLog(100, 2);
  await log.begin(START);
  const seen: string[] = [];
  const follower = (async () => {
    const signal = new AbortController().signal;
    for await (const record of readLog(log, { follow: true }, signal)) {
      seen.push(record.log);
    }
  })();
  for (let i = 0; i < 10; i++) {
    await log.append("stdout", Buffer.from(`${i}\n`));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await log.close();
  await follower;
  assert.deepEqual(
    seen,
    [...Array(10).keys()].map((i) => `${i}\n`),
  );
});

test("a follower that is called off ends", async () => {
  await log.begin(START);
  const control = new AbortController();
  const follower = (async () => {
    let count = 0;
    const reader = readLog(log, { follow: true }, control.signal);
    for await (const record of reader) count += record.log.length;
    return count;
  })();
  await log.append("stdout", Buffer.from("a\n"));
  setTimeout(() => control.abort(), 20);
  assert.equal(await follower, 2);
});

test("since and until choose by time", async () => {
  await log.begin(START);
  for (const line of ["a\n", "b\n", "c\n"]) {
    await log.append("stdout", Buffer.from(line));
  }
  const [, second] = await read();
  assert.ok(second);
  assert.deepEqual(
    (await read({ since: second.time })).map((r) => r.log),
    ["b\n", "c\n"],
  );
  assert.deepEqual(
    (await read({ until: second.time })).map((r) => r.log),
    ["a\n", "b\n"],
  );
});

test("the last offsets tell where a run's log ends", async () => {
  await log.begin(START);
  await log.append("stdout", Buffer.from("of an earlier run\n"));
  await log.close();
  await log.begin(START);
  const since = new Date(Date.now() + 1).toISOString();
  await new Promise((resolve) => setTimeout(resolve, 5));
  await log.append("stdout", Buffer.from("ab\ncd\nhalf"));
  assert.deepEqual(await lastOffsets(log, since), { stdout: 6, stderr: 0 });
});

test("what is no UTF-8 is replaced and does not break the log", async () => {
  await log.begin(START);
  await log.append("stdout", Buffer.from([0x61, 0xff, 0x62, 0x0a]));
  assert.deepEqual(
    (await read()).map((r) => [r.log, r.offset]),
    [["a\ufffdb\n", 4]],
  );
});

test("many lines in one chunk are rotated line by line", async () => {
  log = makeLog(1000, 3);
  await log.begin(START);
  const text = Array.from({ length: 100 }, (_, i) => `line ${i}\n`);
  await log.append("stdout", Buffer.from(text.join("")));
  for (const suffix of ["", ".1", ".2"]) {
    const file = await readFile(`${log.path}${suffix}`, "utf8");
    const [first = ""] = file.split("\n");
    assert.ok(file.length <= 1000 + first.length + 2, `${file.length} bytes`);
  }
  const lines = (await read()).map((record) => record.log);
  assert.ok(lines.length > 10 && lines.length < 100);
  assert.deepEqual(lines, text.slice(-lines.length));
});

test("half a record that a killed daemon left is cut off", async () => {
  await log.begin(START);
  await log.append("stdout", Buffer.from("one\ntwo\n"));
  await log.close();
  for (const stump of ['{"log":"thr', `{"log":"${"x".repeat(150_000)}`]) {
    await appendFile(log.path, stump);
    log = makeLog(Infinity, 1);
    const offsets = await lastOffsets(log, "");
    assert.equal(offsets.stdout, 8);
    await log.begin(offsets);
    await log.close();
  }
  log = makeLog(Infinity, 1);
  await log.begin({ stdout: 8, stderr: 0 });
  await log.append("stdout", Buffer.from("three\n"));
  assert.deepEqual(
    (await read()).map((r) => r.log),
    ["one\n", "two\n", "three\n"],
  );
});

test("a log that is nothing but half a record begins anew", async () => {
  await appendFile(log.path, '{"log":"on');
  await log.begin(START);
  await log.append("stdout", Buffer.from("one\n"));
  assert.deepEqual(
    (await read()).map((r) => r.log),
    ["one\n"],
  );
});

const numbered = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => `line ${from + i}\n`);
const files = async () => (await readdir(directory)).sort();
const lines = async (options?: Partial<ReadOptions>) =>
  (await read(options)).map((record) => record.log);

/** A log of the lines 0 to 9, two in each file; the oldest files are gone. */
async function compressedLog(): Promise<void> {
  log = makeLog(100, 4, true);
  await log.begin(START);
  for (const line of numbered(0, 10)) {
    await log.append("stdout", Buffer.from(line));
  }
  await log.compressed;
}

test("rotated files are compressed, and counted with the others", async () => {
  await compressedLog();
  const base = "x-json.log";
  assert.deepEqual(await files(), [
    base,
    `${base}.1.gz`,
    `${base}.2.gz`,
    `${base}.3.gz`,
  ]);
  const file = await readFile(`${log.path}.1.gz`);
  assert.deepEqual(
    gunzipSync(file)
      .toString()
      .trimEnd()
      .split("\n")
      .map((line) => (JSON.parse(line) as LogRecord).log),
    numbered(6, 8),
  );
  await log.discard();
  log.compress();
  await log.compressed;
});

test("compressed files are read as the others are", async () => {
  await compressedLog();
  assert.deepEqual(await lines(), numbered(2, 10));
  for (let tail = 0; tail < 10; tail++) {
    const first = Math.max(2, 10 - tail);
    assert.deepEqual(await lines({ tail }), numbered(first, 10), `${tail}`);
  }
  const fifth = (await read())[3];
  assert.ok(fifth);
  assert.deepEqual(await lines({ since: fifth.time }), numbered(5, 10));
  assert.deepEqual(await lines({ until: fifth.time }), numbered(2, 6));
  assert.deepEqual(await lastOffsets(log, ""), { stdout: 70, stderr: 0 });
});

test("a follower that is behind reads what was compressed meanwhile", async () => {
  log = makeLog(100, 20, true);
  await log.begin(START);
  await log.append("stdout", Buffer.from("line 0\n"));
  const signal = new AbortController().signal;
  const follower = readLog(log, { follow: true }, signal);
  const first = await follower.next();
  assert.ok(!first.done);
  const seen = [first.value.log];
  for (const line of numbered(1, 20)) {
    await log.append("stdout", Buffer.from(line));
  }
  await log.compressed;
  assert.ok((await files()).includes("x-json.log.9.gz"));
  await log.close();
  for await (const record of follower) seen.push(record.log);
  assert.deepEqual(seen, numbered(0, 20));
});

test("no line is lost, or read twice, where a daemon was killed while it compressed", async () => {
  await compressedLog();
  await log.close();
  const second = `${log.path}.2`;
  const whole = await readFile(`${second}.gz`);
  // Killed in the middle: the file, and half of the compressed one.
  await writeFile(second, gunzipSync(whole));
  await rename(`${second}.gz`, `${second}.gz.tmp`);
  await truncate(`${second}.gz.tmp`, 20);
  // Killed at the end: both.
  await writeFile(
    `${log.path}.1`,
    gunzipSync(await readFile(`${log.path}.1.gz`)),
  );
  log = makeLog(100, 4, true);
  assert.deepEqual(await lines(), numbered(2, 10));
  log.compress();
  await log.compressed;
  assert.deepEqual(await files(), [
    "x-json.log",
    ...["x-json.log.1.gz", "x-json.log.2.gz", "x-json.log.3.gz"],
  ]);
  assert.deepEqual(await readFile(`${second}.gz`), whole);
  assert.deepEqual(await lines(), numbered(2, 10));
});

test("a file that could not be compressed is rotated as it is", async () => {
  const errors: Error[] = [];
  const options = { maxSize: 100, maxFiles: 3, compress: true };
  log = new JsonFileLog(path.join(directory, "x-json.log"), {
    ...options,
    onError: (error) => errors.push(error),
  });
  await log.begin(START);
  // A folder of that name cannot be replaced.
  await mkdir(`${log.path}.1.gz.tmp`);
  for (const line of numbered(0, 6)) {
    await log.append("stdout", Buffer.from(line));
  }
  await log.compressed;
  assert.ok(errors.length > 0);
  assert.deepEqual(await lines(), numbered(0, 6));
  await rm(`${log.path}.1.gz.tmp`, { recursive: true });
  log.compress();
  await log.compressed;
  assert.deepEqual(await files(), [
    "x-json.log",
    "x-json.log.1.gz",
    "x-json.log.2.gz",
  ]);
  assert.deepEqual(await lines(), numbered(0, 6));
});

test("a damaged compressed file costs no more than its own lines", async () => {
  await compressedLog();
  const damaged = gzipSync(Buffer.alloc(1000, "x")).subarray(0, 15);
  await writeFile(`${log.path}.2.gz`, damaged);
  assert.deepEqual(await lines(), [...numbered(2, 4), ...numbered(6, 10)]);
  assert.deepEqual(await lines({ tail: 5 }), [
    ...numbered(3, 4),
    ...numbered(6, 10),
  ]);
});
