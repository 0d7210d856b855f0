import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { FrozenDisk } from "./frozen-disk.js";

/** A disk in a folder where there is nothing else but its copies. */
async function setUp(t: TestContext) {
  const folder = await mkdtemp(path.join(tmpdir(), "hull-frozen-"));
  t.after(() => rm(folder, { recursive: true }));
  const own = path.join(folder, "own");
  await writeFile(own, "as it was");
  let made = 0;
  const disk = new FrozenDisk(own, async () => {
    const copy = path.join(folder, `copy${made++}`);
    await writeFile(copy, await readFile(own));
    return copy;
  });
  return { disk, files: async () => (await readdir(folder)).sort() };
}

test("each copy is given away once; some are made before", async (t) => {
  const { disk, files } = await setUp(t);
  await disk.stock();
  assert.deepEqual(await files(), ["copy0", "copy1", "own"]);
  const copies = await Promise.all([1, 2, 3].map(() => disk.take()));
  assert.equal(new Set(copies).size, 3);
  assert.deepEqual(await files(), ["copy0", "copy1", "copy2", "own"]);
  await disk.stock();
  assert.equal((await files()).length, 6);
});

test("copies that nobody took go with the disk, those that were taken stay", async (t) => {
  const { disk, files } = await setUp(t);
  await disk.stock();
  const taken = path.basename(await disk.take());
  const late = disk.stock();
  await disk.drop();
  await late;
  assert.deepEqual(await files(), [taken, "own"]);
});
