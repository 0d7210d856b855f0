import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidParameter } from "../errors.js";
import { DetachFilter, detachKeysOf } from "./detach-keys.js";

test("the default sequence is ctrl-p ctrl-q", () => {
  assert.deepEqual([...detachKeysOf(undefined)], [16, 17]);
  assert.deepEqual([...detachKeysOf("")], [16, 17]);
});

test("letters, signs and control keys make a sequence", () => {
  assert.deepEqual([...detachKeysOf("a,ctrl-[,ctrl-Z,@")], [97, 27, 26, 64]);
});

test("what is no key is refused", () => {
  for (const text of ["ctrl-", "ctrl-1", "ab", "ctrl-a,", "esc"]) {
    assert.throws(() => detachKeysOf(text), InvalidParameter, text);
  }
});

test("the sequence detaches, wherever chunks are cut", () => {
  const filter = new DetachFilter(detachKeysOf(undefined));
  assert.deepEqual(filter.pass(Buffer.from("ls\x10")), {
    bytes: Buffer.from("ls"),
    detach: false,
  });
  assert.deepEqual(filter.pass(Buffer.from("\x11rest")), {
    bytes: Buffer.from(""),
    detach: true,
  });
});

test("a beginning that is no sequence reaches the process", () => {
  const filter = new DetachFilter(detachKeysOf(undefined));
  assert.equal(filter.pass(Buffer.from("\x10")).bytes.length, 0);
  assert.deepEqual(
    filter.pass(Buffer.from("\x10x")).bytes,
    Buffer.from("\x10\x10x"),
  );
});
