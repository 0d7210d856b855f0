import assert from "node:assert/strict";
import { test } from "node:test";
import { Filters } from "./filters.js";

const byName = (pattern: string) => new Filters([["name", [pattern]]]);

test("a name is matched by a part of it or by a simple regular expression", () => {
  for (const pattern of [
    "web",
    "eb-",
    "^web",
    "-1$",
    "^/?web-1$",
    "^web-.*$",
    "db|web",
    "^web.1$",
  ]) {
    assert.equal(byName(pattern).match("name", "web-1"), true, pattern);
  }
  for (const pattern of ["^eb", "web$", "^/?web$", "db|cache"]) {
    assert.equal(byName(pattern).match("name", "web-1"), false, pattern);
  }
});

test("what is no tame regular expression is plain text", () => {
  assert.equal(byName("(((").match("name", "a(((b"), true);
  assert.equal(byName("*").match("name", "a*b"), true);
  const slow = "^(a+)+$";
  assert.equal(byName(slow).match("name", "a".repeat(60) + "!"), false);
  assert.equal(byName("a*".repeat(20)).match("name", "a".repeat(60)), false);
});
