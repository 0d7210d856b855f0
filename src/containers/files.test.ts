import assert from "node:assert/strict";
import { test } from "node:test";

import { parseChanges } from "./files.js";

test("a guest's list of changes is read, and refused when it is none", () => {
  assert.deepEqual(parseChanges("1/a\x000/b c\n\x002/d\0"), [
    { Path: "/a", Kind: 1 },
    { Path: "/b c\n", Kind: 0 },
    { Path: "/d", Kind: 2 },
  ]);
  assert.deepEqual(parseChanges(""), []);
  for (const text of ["1/a", "3/a\0", "1a\0", "\0"])
    assert.throws(() => parseChanges(text), /malformed/);
});
