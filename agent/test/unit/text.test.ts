import assert from "node:assert/strict";
import { test } from "node:test";
import { capabilityNumbers, capabilityWords } from "../../src/capabilities.js";
import { limitFiles } from "../../src/cgroup.js";
import { lookPath } from "../../src/look-path.js";
import { parseMountOptions } from "../../src/mount-options.js";
import { parseStat } from "../../src/process-list.js";
import { checkRequest, parseRequest } from "../../src/requests.js";
import { resourceNumber } from "../../src/rlimits.js";

test("Docker's default capabilities are 0xa80425fb", () => {
  const names =
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL CAP_AUDIT_WRITE";
  assert.deepEqual(
    capabilityWords(capabilityNumbers(names.split(" "))),
    [0xa80425fb, 0],
  );
  assert.deepEqual(capabilityWords(capabilityNumbers(["CHECKPOINT_RESTORE"])), [
    0,
    1 << 8,
  ]);
  assert.throws(
    () => capabilityNumbers(["NOPE"]),
    /unknown capability: "NOPE"/,
  );
});

test("limits become control files", () => {
  assert.deepEqual(limitFiles({}), []);
  assert.deepEqual(
    limitFiles({
      memoryBytes: 100,
      memorySwapBytes: 150,
      cpuQuotaUs: 50000,
      cpuWeight: 39,
      pids: 10,
    }),
    [
      ["memory.max", "100"],
      ["memory.swap.max", "50"],
      ["cpu.max", "50000 100000"],
      ["cpu.weight", "39"],
      ["pids.max", "10"],
    ],
  );
  assert.deepEqual(
    limitFiles({ memoryBytes: 100, memorySwapBytes: -1, pids: -1 }),
    [
      ["memory.max", "100"],
      ["memory.swap.max", "max"],
      // An update takes the limit away.
      ["pids.max", "max"],
    ],
  );
});

test("mount options are told apart from data, later ones win", () => {
  assert.deepEqual(
    parseMountOptions([
      "rw",
      "noexec",
      "nosuid",
      "size=64m",
      "mode=1777",
      "exec",
    ]),
    {
      flags: 2,
      data: "size=64m,mode=1777",
    },
  );
  assert.deepEqual(parseMountOptions(["constructor", "tmpcopyup", ""]), {
    flags: 0,
    data: "constructor",
  });
});

test("a name is looked up along PATH, a path is not", () => {
  const there = new Set(["/b/prog", "./here", "/x/y"]);
  const check = (path: string) =>
    there.has(path)
      ? undefined
      : {
          errno: "ENOENT",
          text: "no such file or directory",
          call: `stat ${path}`,
        };
  assert.equal(lookPath("prog", "/a:/b", check), "/b/prog");
  assert.equal(lookPath("here", "/a::/b", check), "./here");
  assert.equal(lookPath("/x/y", undefined, check), "/x/y");
  assert.throws(
    () => lookPath("prog", undefined, check),
    /executable file not found in \$PATH/,
  );
  assert.throws(
    () => lookPath("/x/z", "/b", check),
    /exec: "\/x\/z": stat \/x\/z: no such file or directory/,
  );
});

test("/proc/PID/stat is read whatever the process calls itself", () => {
  const rest =
    "S 5 1 1 34817 1 4194304 90 0 0 0 12 3 0 0 20 0 1 0 777 1000000 250 0";
  const stat = parseStat(`42 (a) b (c) ${rest}`);
  assert.deepEqual(stat, {
    name: "a) b (c",
    ppid: 5,
    ticks: 15,
    startTicks: 777,
    rssPages: 250,
    tty: "pts/1",
  });
});

test("rlimits have Docker's names", () => {
  assert.equal(resourceNumber("nofile"), 7);
  assert.equal(resourceNumber("RLIMIT_CORE"), 4);
  assert.throws(() => resourceNumber("files"), /unknown resource limit/);
});

test("requests are checked before they are carried out", () => {
  for (const text of [
    "",
    "null",
    "1",
    "[]",
    '{"op":"hello"}',
    '{"id":"1","op":"hello"}',
  ])
    assert.equal(parseRequest(text), undefined);
  const check = (text: string) => {
    const raw = parseRequest(text);
    assert.ok(raw);
    return checkRequest(raw);
  };
  assert.equal(check('{"id":1,"op":"hello","args":{}}').op, "hello");
  assert.throws(
    () => check('{"id":1,"op":"__proto__","args":{}}'),
    /unknown operation/,
  );
  assert.throws(
    () =>
      check(
        '{"id":1,"op":"resize","args":{"process":1,"rows":null,"columns":1}}',
      ),
    /rows: number is expected/,
  );
  assert.throws(
    () => check('{"id":1,"op":"spawn","args":{"process":1,"args":[1]}}'),
    /args: strings are expected/,
  );
});
