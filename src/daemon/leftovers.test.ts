import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { removeHalfWritten } from "./leftovers.js";

test("what was not written to its end goes, and nothing else", async (t) => {
  const root = await mkdtemp(path.join(tmpdir(), "hull-leftovers-"));
  t.after(() => rm(root, { recursive: true }));
  const kept = [
    "accelerator.json",
    "blank/ext4-1.img",
    "containers/abc/container.json",
    "images/repositories.json",
    // Users' files have the names they like.
    "volumes/data/_data/notes.json.1",
  ];
  const stumps = [
    "accelerator.json.3111",
    "blank/ext4-1.img.tmp",
    "containers/abc/container.json.429496729",
    "engine-id.17.half",
    "images/repositories.json.17",
    "images/repositories.json.17.half",
    "volumes/data/volume.json.17.half",
    "networks/bridge.json.1",
  ];
  for (const file of [...kept, ...stumps]) {
    const full = path.join(root, file);
    await mkdir(path.dirname(full), { recursive: true });
    await writeFile(full, "{");
  }
  assert.equal(await removeHalfWritten(root), stumps.length);
  const files = await readdir(root, { recursive: true, withFileTypes: true });
  assert.deepEqual(
    files
      .filter((file) => file.isFile())
      .map((file) => path.relative(root, path.join(file.path, file.name)))
      .sort(),
    kept.sort(),
  );
  assert.equal(await removeHalfWritten(path.join(root, "nowhere")), 0);
});
