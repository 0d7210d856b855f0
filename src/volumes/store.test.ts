import assert from "node:assert/strict";
import {
  access,
  mkdir,
  mkdtemp,
  readdir,
  rm,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { pino } from "pino";
import { VolumeStore } from "./store.js";

const RECORD = {
  version: 1 as const,
  createdAt: "2025-11-25T00:00:00Z",
  labels: null,
  options: null,
};

async function setup(t: TestContext) {
  const root = await mkdtemp(path.join(tmpdir(), "hull-volumes-"));
  t.after(() => rm(root, { recursive: true }));
  const said: string[] = [];
  const log = pino({ level: "warn" }, { write: (line) => said.push(line) });
  return { root, said, store: new VolumeStore(root, log) };
}

test("a volume is found again until it is removed", async (t) => {
  const { root, store } = await setup(t);
  await store.create("kept", RECORD);
  await store.create("gone", RECORD);
  await writeFile(path.join(store.content("gone"), "file"), "content");
  await store.remove("gone");
  assert.deepEqual([...(await store.load()).keys()], ["kept"]);
  assert.deepEqual(await readdir(root), ["kept"]);
});

test("what a killed daemon had begun to make or to remove is brought to its end", async (t) => {
  const { root, store } = await setup(t);
  await mkdir(path.join(root, "begun", "_data"), { recursive: true });
  await mkdir(path.join(root, "hardly"));
  await mkdir(path.join(root, ".removed-1-0", "_data", "a"), {
    recursive: true,
  });
  assert.deepEqual([...(await store.load()).keys()], []);
  assert.deepEqual(await readdir(root), []);
});

test("content without a readable record stays, and is named", async (t) => {
  const { root, said, store } = await setup(t);
  for (const name of ["damaged", "bare", "fine"]) {
    await store.create(name, RECORD);
    await writeFile(path.join(store.content(name), "file"), name);
  }
  await writeFile(path.join(root, "damaged", "volume.json"), '{"version":1,');
  await rm(path.join(root, "bare", "volume.json"));
  for (let start = 0; start < 2; start++) {
    assert.deepEqual([...(await store.load()).keys()], ["fine"]);
    for (const name of ["damaged", "bare"]) {
      await access(path.join(store.content(name), "file"));
    }
  }
  assert.match(said.join(""), /damaged\/volume\.json.*was set aside/);
  assert.match(said.join(""), /"volume":"bare"/);
  const files = await readdir(path.join(root, "damaged"));
  assert.equal(files.length, 2);
  assert.match(files.join(" "), /volume\.json\.damaged-\d+/);
});
