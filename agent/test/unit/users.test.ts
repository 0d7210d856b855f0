import assert from "node:assert/strict";
import { test } from "node:test";
import { Failure } from "../../src/failure.js";
import { parseUserFiles, resolveUser } from "../../src/users.js";

const passwd = `# comment
root:x:0:0:root:/root:/bin/sh

app:x:1000:1000::/home/app:/bin/sh
app:x:1001:1001::/home/second:/bin/sh
42:x:7:7::/odd:/bin/sh
short:x
`;
const group = `root:x:0:
app:x:1000:
one:x:50:app,other
two:x:60:other,app
three:x:70:approx
`;
const resolve = (spec: string, extra: string[] = []) =>
  resolveUser(spec, extra, parseUserFiles(passwd, group));

test("nobody named is root, with root's home", () => {
  assert.deepEqual(resolve(""), { uid: 0, gid: 0, groups: [0], home: "/root" });
});

test("without a passwd file the home is /", () => {
  assert.deepEqual(resolveUser("", [], parseUserFiles("", "")), {
    uid: 0,
    gid: 0,
    groups: [0],
    home: "/",
  });
  assert.deepEqual(resolveUser("12", [], parseUserFiles("", "")), {
    uid: 12,
    gid: 0,
    groups: [0],
    home: "/",
  });
});

test("the first matching entry counts, with the groups that list the user", () => {
  assert.deepEqual(resolve("app"), {
    uid: 1000,
    gid: 1000,
    groups: [1000, 50, 60],
    home: "/home/app",
  });
});

test("a number is an ID even when a user has it as a name", () => {
  assert.equal(resolve("42").uid, 42);
  assert.equal(resolve("7").home, "/odd");
});

test("a named group replaces the user's groups", () => {
  assert.deepEqual(resolve("app:two"), {
    uid: 1000,
    gid: 60,
    groups: [60],
    home: "/home/app",
  });
  assert.deepEqual(resolve("app:999").groups, [999]);
  assert.deepEqual(resolve(":one"), {
    uid: 0,
    gid: 50,
    groups: [50],
    home: "/root",
  });
});

test("more groups come by name or number, each once", () => {
  assert.deepEqual(
    resolve("app", ["two", "three", "88", "50"]).groups,
    [1000, 50, 60, 70, 88],
  );
});

test("fields that are missing read as zero and empty", () => {
  assert.deepEqual(resolve("short"), { uid: 0, gid: 0, groups: [0], home: "" });
});

const refusals: [string, string[], string][] = [
  ["nix", [], "unable to find user nix: no matching entries in passwd file"],
  [
    "app:nix",
    [],
    "unable to find group nix: no matching entries in group file",
  ],
  [
    "app",
    ["nix"],
    "unable to find group nix: no matching entries in group file",
  ],
  ["-1", [], "uids and gids must be in range 0-2147483647"],
  ["2147483648", [], "uids and gids must be in range 0-2147483647"],
  ["0:4294967295", [], "uids and gids must be in range 0-2147483647"],
];
for (const [spec, extra, message] of refusals)
  test(`${spec} ${extra.join()} is refused: ${message}`, () => {
    assert.throws(
      () => resolve(spec, extra),
      (error) =>
        error instanceof Failure &&
        error.code === "no-such-user" &&
        error.message === message,
    );
  });
