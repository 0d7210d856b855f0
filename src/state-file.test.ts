import assert from "node:assert/strict";
import fs, { readFileSync, readlinkSync } from "node:fs";
import {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { pino } from "pino";
import { z } from "zod";
import {
  isSetAside,
  readRecord,
  writeRecord,
  writeState,
} from "./state-file.js";

async function folder(t: TestContext): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), "hull-state-"));
  t.after(() => rm(directory, { recursive: true }));
  return directory;
}

/** What is synced from now on: its path, and what the file in question holds at that moment. */
function syncsOf(t: TestContext, file: string) {
  const seen: [string, string][] = [];
  const real = fs.fsync;
  t.mock.method(fs, "fsync", (...args: Parameters<typeof real>) => {
    const synced = readlinkSync(`/proc/self/fd/${args[0]}`);
    seen.push([synced, readFileSync(file, "utf8")]);
    real(...args);
  });
  return seen;
}

test("a state file is synced, renamed, and its folder synced", async (t) => {
  const directory = await folder(t);
  const file = path.join(directory, "state.json");
  await writeFile(file, "old");
  const syncs = syncsOf(t, file);
  await writeState(file, "new");
  assert.deepEqual(syncs, [
    [`${file}.${process.pid}.half`, "old"],
    [directory, "new"],
  ]);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(directory), ["state.json"]);
});

test("where a power failure may leave either content, only the file is synced, before it has its name", async (t) => {
  const file = path.join(await folder(t), "state.json");
  await writeFile(file, "old");
  const syncs = syncsOf(t, file);
  await writeState(file, "new", { durable: "either" });
  assert.deepEqual(syncs, [[`${file}.${process.pid}.half`, "old"]]);
  assert.equal(await readFile(file, "utf8"), "new");
});

test("what need not outlive a power failure waits for no disk", async (t) => {
  const file = path.join(await folder(t), "trace.json");
  await writeFile(file, "old");
  const syncs = syncsOf(t, file);
  await writeState(file, "new", { durable: false, mode: 0o644 });
  assert.deepEqual(syncs, []);
  assert.equal(await readFile(file, "utf8"), "new");
  assert.equal((await stat(file)).mode & 0o777, 0o644);
});

test("of several writes at once the last one counts", async (t) => {
  const directory = await folder(t);
  const file = path.join(directory, "state.json");
  await Promise.all(
    Array.from({ length: 30 }, (_, at) => writeRecord(file, { at })),
  );
  assert.deepEqual(JSON.parse(await readFile(file, "utf8")), { at: 29 });
  assert.deepEqual(await readdir(directory), ["state.json"]);
});

test("a write that fails leaves the old content, and the next one succeeds", async (t) => {
  const directory = await folder(t);
  const file = path.join(directory, "state.json");
  await writeState(file, "old");
  const obstacle = `${file}.${process.pid}.half`;
  await mkdir(obstacle);
  await assert.rejects(writeState(file, "new"));
  assert.equal(await readFile(file, "utf8"), "old");
  await rm(obstacle, { recursive: true, force: true });
  await writeState(file, "newer");
  assert.equal(await readFile(file, "utf8"), "newer");
});

test("a record that is cut or of another shape is set aside by name", async (t) => {
  const directory = await folder(t);
  const shape = z.object({ version: z.literal(1), name: z.string() });
  const file = path.join(directory, "one.json");
  for (const content of [
    '{"version":1,"na',
    '{"version":2,"name":"x"}',
    "",
    "\0\0\0\0",
  ]) {
    const said: string[] = [];
    const log = pino({ level: "error" }, { write: (line) => said.push(line) });
    await writeFile(file, content);
    assert.equal(await readRecord(file, shape, log), undefined);
    const [aside = "", ...more] = await readdir(directory);
    assert.deepEqual(more, []);
    assert.ok(isSetAside(aside), aside);
    assert.equal(await readFile(path.join(directory, aside), "utf8"), content);
    assert.match(said.join(""), /one\.json.*a damaged record was set aside/);
    assert.equal(await readRecord(file, shape, log), undefined);
    await rm(path.join(directory, aside));
  }
  await writeRecord(file, { version: 1, name: "x" });
  assert.deepEqual(await readRecord(file, shape, pino({ level: "silent" })), {
    version: 1,
    name: "x",
  });
});
