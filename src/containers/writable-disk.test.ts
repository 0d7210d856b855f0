import assert from "node:assert/strict";
import { mkdir, mkdtemp, open, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { WritableDisks } from "./writable-disk.js";

const BYTES = 64 * 1024 * 1024;
let root: string;

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), "hull-disks-"));
});
afterEach(() => rm(root, { recursive: true }));

/** Size of a file and the magic number of the ext4 in it. */
async function examine(file: string): Promise<[number, number]> {
  const handle = await open(file);
  try {
    const { buffer } = await handle.read(Buffer.alloc(2), 0, 2, 1024 + 56);
    return [(await handle.stat()).size, buffer.readUInt16LE()];
  } finally {
    await handle.close();
  }
}

async function spares(): Promise<string[]> {
  const names = await readdir(path.join(root, "blank"));
  return names.filter((name) => name.startsWith("spare-")).sort();
}

test("disks that are made ahead are given away, each once", async () => {
  const disks = new WritableDisks(root);
  await disks.create(path.join(root, "first"), BYTES);
  while ((await spares()).length < 2) await sleep(20);
  const ahead = await spares();
  await disks.create(path.join(root, "second"), BYTES);
  await disks.create(path.join(root, "third"), BYTES);
  const left = await spares();
  assert.deepEqual(
    ahead.filter((name) => left.includes(name)),
    [],
  );
  for (const name of ["first", "second", "third"]) {
    const found = await examine(path.join(root, name));
    assert.deepEqual(found, [BYTES, 0xef53], name);
  }
});

test("a disk of another size is made to measure", async () => {
  const disks = new WritableDisks(root);
  await disks.create(path.join(root, "first"), BYTES);
  while ((await spares()).length < 2) await sleep(20);
  await disks.create(path.join(root, "other"), 2 * BYTES);
  const found = await examine(path.join(root, "other"));
  assert.deepEqual(found, [2 * BYTES, 0xef53]);
});

test("what an earlier daemon left is removed", async () => {
  await mkdir(path.join(root, "blank"));
  await writeFile(path.join(root, "blank/spare-0.img"), "half");
  const disks = new WritableDisks(root);
  await disks.create(path.join(root, "first"), BYTES);
  assert.deepEqual(await spares(), []);
  const found = await examine(path.join(root, "first"));
  assert.deepEqual(found, [BYTES, 0xef53]);
});
