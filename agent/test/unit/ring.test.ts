import assert from "node:assert/strict";
import { test } from "node:test";
import { Ring } from "../../src/ring.js";

/** Puts as much of a text in as there is room in one piece; gives what was left. */
function put(ring: Ring, text: string): string {
  const count = Math.min(text.length, ring.freePiece);
  Buffer.from(ring.buffer).write(text.slice(0, count), ring.at(ring.end));
  ring.end += count;
  return text.slice(count);
}

function get(ring: Ring, offset: number): string {
  const at = ring.at(offset);
  return Buffer.from(ring.buffer).toString(
    "latin1",
    at,
    at + ring.piece(offset),
  );
}

test("bytes stay until they are forgotten, over the edge too", () => {
  const ring = new Ring(8, (size) => new ArrayBuffer(size));
  assert.equal(put(ring, "abcdefghij"), "ij");
  assert.equal(ring.room, 0);
  ring.forget(5);
  assert.equal(put(ring, "ijklmno"), "no");
  assert.deepEqual([ring.begin, ring.end], [5, 13]);
  assert.equal(get(ring, 5), "fgh");
  assert.equal(get(ring, 8), "ijklm");
});

test("forgetting goes neither back nor beyond the end", () => {
  const ring = new Ring(8, (size) => new ArrayBuffer(size));
  put(ring, "abcdef");
  ring.forget(3);
  ring.forget(1);
  assert.equal(ring.begin, 3);
  ring.forget(100);
  assert.equal(ring.begin, 6);
});

test("memory is taken with the first byte and can be given back", () => {
  let taken = 0;
  const ring = new Ring(8, (size) => (taken++, new ArrayBuffer(size)));
  assert.equal(taken, 0);
  put(ring, "abc");
  ring.drop();
  put(ring, "def");
  assert.equal(taken, 2);
  assert.equal(get(ring, 3), "def");
});
