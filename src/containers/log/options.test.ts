import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidParameter } from "../../errors.js";
import { logOptions } from "./options.js";

const read = (Type: string, Config: Record<string, string>) =>
  logOptions({ LogConfig: { Type, Config } });
const ROTATED = { "max-size": "1k", "max-file": "2" };

test("compress is off for json-file and on for local unless it is chosen", () => {
  assert.equal(read("json-file", ROTATED).compress, false);
  assert.equal(read("json-file", { ...ROTATED, compress: "T" }).compress, true);
  assert.equal(read("local", {}).compress, true);
  assert.equal(read("local", { "max-file": "1" }).compress, false);
  assert.equal(read("local", { compress: "0" }).compress, false);
});

test("compress must be a boolean, and wants files that are rotated", () => {
  for (const [config, message] of [
    [{ ...ROTATED, compress: "yes" }, /compress: 'yes'/],
    [{ compress: "true" }, /max-file is less than 2 or max-size is not set/],
    [{ "max-size": "1k", compress: "true" }, /compress cannot be true/],
  ] as const) {
    assert.throws(
      () => read("json-file", config),
      (error: Error) =>
        error instanceof InvalidParameter && message.test(error.message),
    );
  }
  assert.equal(read("json-file", { compress: "false" }).compress, false);
});
