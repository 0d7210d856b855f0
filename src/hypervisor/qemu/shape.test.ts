import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidParameter } from "../../errors.js";
import { memoryClass, shapeName, shapeOf } from "./shape.js";

const MiB = 1024 * 1024;

test("memory is rounded up to a few classes", () => {
  const classes = new Set<number>();
  for (let mib = 64; mib <= 4096; mib++) {
    const size = memoryClass(mib);
    assert(size >= mib && size < mib * 1.5, `${mib}: ${size}`);
    classes.add(size);
  }
  assert.equal(classes.size, 13);
  assert.equal(memoryClass(512), 512);
  assert.equal(memoryClass(513), 768);
});

test("a shape has its name", () => {
  const shape = shapeOf({ memoryBytes: 500 * MiB, vcpus: 2 }, "tap");
  assert.equal(shapeName(shape), "512m-2cpu-tap");
});

test("impossible sizes are refused", () => {
  for (const vcpus of [0, 1.5, 65, NaN]) {
    assert.throws(
      () => shapeOf({ memoryBytes: 512 * MiB, vcpus }, "tap"),
      InvalidParameter,
    );
  }
  assert.throws(
    () => shapeOf({ memoryBytes: 6 * MiB, vcpus: 1 }, "tap"),
    InvalidParameter,
  );
});
