import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { checkPvhKernel, namedKernel } from "./kernels.js";

/** The least of an ELF file: its header, one segment of notes, one note. */
function elf(noteType: number, machine = 62): Buffer {
  const file = Buffer.alloc(64 + 56 + 20);
  file.write("\x7fELF\x02", "latin1");
  file.writeUInt16LE(machine, 18);
  file.writeBigUInt64LE(64n, 32);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(1, 56);
  file.writeUInt32LE(4, 64);
  file.writeBigUInt64LE(120n, 64 + 8);
  file.writeBigUInt64LE(20n, 64 + 32);
  file.writeUInt32LE(4, 120);
  file.writeUInt32LE(4, 124);
  file.writeUInt32LE(noteType, 128);
  file.write("Xen\0", 132, "latin1");
  return file;
}

test("a kernel is told by its PVH entry point", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "hull-kernels-"));
  const file = path.join(folder, "kernel");
  const check = async (bytes: Buffer) => {
    await writeFile(file, bytes);
    await checkPvhKernel(file);
  };
  try {
    await check(elf(18));
    await assert.rejects(check(elf(6)), /has no PVH entry point/);
    await assert.rejects(check(elf(18, 183)), /no 64-bit ELF file of x86/);
    for (const bytes of [Buffer.alloc(0), Buffer.alloc(4096, 255)]) {
      await assert.rejects(check(bytes), /no 64-bit ELF file of x86/);
    }
    // Wherever it is cut off.
    for (let length = 64; length < elf(18).length - 8; length++) {
      await assert.rejects(check(elf(18).subarray(0, length)), /no PVH entry/);
    }
    await assert.rejects(
      checkPvhKernel(path.join(folder, "none")),
      /cannot be read: ENOENT/,
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("names are those of the configuration, and nothing an object has by itself", () => {
  const kernels = { mine: { path: "/x", parameters: "" } };
  assert.equal(namedKernel(kernels, "mine").path, "/x");
  for (const name of ["other", "toString", "__proto__"]) {
    assert.throws(() => namedKernel(kernels, name), /no guest kernel is named/);
  }
});
