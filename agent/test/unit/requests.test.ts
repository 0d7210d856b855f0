import assert from "node:assert/strict";
import { test } from "node:test";
import { Failure } from "../../src/failure.js";
import { checkRequest, parseRequest } from "../../src/requests.js";

const SETUP = {
  time: 0,
  hostname: "box",
  network: { interfaces: [] },
  files: [],
};
const SPAWN = { process: 1, args: ["sh"], env: [] };

function check(op: string, args: unknown): unknown {
  const raw = parseRequest(JSON.stringify({ id: 7, op, args }));
  assert.ok(raw);
  return checkRequest(raw);
}

function refusal(message: string) {
  return (error: unknown) =>
    error instanceof Failure &&
    error.code === "invalid" &&
    error.message === message;
}

test("a request may leave out what has a default, and nothing else", () => {
  assert.deepEqual(check("setup", SETUP), { id: 7, op: "setup", args: SETUP });
  assert.deepEqual(check("spawn", SPAWN), { id: 7, op: "spawn", args: SPAWN });
  for (const [op, args] of Object.entries({ setup: SETUP, spawn: SPAWN }))
    for (const field of Object.keys(args)) {
      const rest = Object.entries(args).filter(([name]) => name !== field);
      assert.throws(
        () => check(op, Object.fromEntries(rest)),
        (error: Error) =>
          error instanceof Failure && error.message.startsWith(`${field}: `),
      );
    }
});

test("what a request says is of its kind, required or not", () => {
  const wrong: [op: string, field: string, value: unknown, wanted: string][] = [
    ["setup", "time", "0", "number is"],
    ["setup", "hostname", null, "string is"],
    ["setup", "network", [], "object is"],
    ["setup", "files", {}, "array is"],
    ["setup", "mounts", {}, "array is"],
    ["setup", "rootfs", null, "object is"],
    ["setup", "limits", [], "object is"],
    ["setup", "privileged", 1, "boolean is"],
    ["setup", "maskedPaths", ["/proc/keys", 1], "strings are"],
    ["setup", "readonlyPaths", "/proc/sys", "strings are"],
    ["spawn", "args", ["sh", null], "strings are"],
    ["spawn", "env", "PATH=/bin", "strings are"],
    ["spawn", "cwd", [], "string is"],
    ["spawn", "tty", true, "object is"],
    ["spawn", "capabilities", [[]], "strings are"],
    ["spawn", "oomScoreAdj", "5", "number is"],
  ];
  for (const [op, field, value, wanted] of wrong) {
    const args = { ...(op === "setup" ? SETUP : SPAWN), [field]: value };
    assert.throws(
      () => check(op, args),
      refusal(`${field}: ${wanted} expected`),
      `${op}.${field}`,
    );
  }
});

test("operations there are none of are refused, also by names that every object has", () => {
  for (const op of ["nothing", "toString", "__proto__", "constructor"])
    assert.throws(
      () => check(op, {}),
      refusal(`unknown operation ${JSON.stringify(op)}`),
    );
  assert.throws(
    () => check("hello", null),
    refusal("args: an object is expected"),
  );
});

test("what is no request cannot be answered", () => {
  for (const text of ["", "{", "1", "null", '{"op":"hello"}', '{"id":1}'])
    assert.equal(parseRequest(text), undefined, text);
});
