import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import type { LoadResult } from "../../../protocol/index.js";
import { TestContainer } from "./container.js";
import { Refused } from "./machine.js";

const PATH = "/nowhere:/bin";
const FURNISH = {
  paths: ["/etc/hosts"],
  program: { name: "sh", path: PATH },
};
const SETUP = {
  files: [
    { path: "/etc/hosts", content: "127.0.0.1 localhost\n", mode: 0o644 },
  ],
};
const SIGKILL = 9;
const SIGSYS = 31;
const UNTIL_ITS_END = { code: 0, signal: 0 };
const UNTIL_AN_EFFECT = { code: 128 + SIGSYS, signal: SIGSYS };
const UNTIL_THE_LIMIT = { code: 128 + SIGKILL, signal: SIGKILL };
const NOT_AT_ALL = { code: 127, signal: 0 };

let plain: TestContainer;
let loaded: TestContainer;

before(async () => {
  [plain, loaded] = await Promise.all([
    TestContainer.boot(),
    TestContainer.boot(),
  ]);
});

after(async () => {
  await Promise.all([plain.stop(), loaded.stop()]);
});

function load(box: TestContainer, name: string): Promise<LoadResult> {
  return box.machine.request("load", { program: { name, path: PATH } });
}

function invalid(error: unknown): boolean {
  return error instanceof Refused && error.error.code === "invalid";
}

test("only a furnished machine loads a program", async () => {
  await assert.rejects(load(loaded, "sh"), invalid);
  for (const box of [plain, loaded])
    await box.machine.request("furnish", FURNISH);
});

for (const [what, name, result] of [
  ["a static one ends", "true", UNTIL_ITS_END],
  ["a dynamic one ends", "dynamic", UNTIL_ITS_END],
  ["it would write to its output", "hostname", UNTIL_AN_EFFECT],
  ["a script would make a file", "maker", UNTIL_AN_EFFECT],
  ["a script's time is over", "spinner", UNTIL_THE_LIMIT],
  ["one that waits was given its time", "waiter", UNTIL_THE_LIMIT],
  ["it turns out to be none", "/private/garbage", NOT_AT_ALL],
  ["it turns out to be missing", "missing", NOT_AT_ALL],
  [
    "its path is found to lead out of the image",
    "/run/root/bin/true",
    NOT_AT_ALL,
  ],
] as const)
  test(`a program is loaded until ${what}`, async () => {
    const first = await load(loaded, name);
    // On a busy host the first time may not be enough; what was done then is warm now.
    const again = isDeepStrictEqual(first, UNTIL_THE_LIMIT);
    assert.deepEqual(again ? await load(loaded, name) : first, result);
  });

test("no container comes into a machine that is loading, and one may afterwards", async () => {
  const loading = load(loaded, "spinner");
  await assert.rejects(loaded.setup(SETUP), invalid);
  await assert.rejects(load(loaded, "true"), invalid);
  assert.deepEqual(await loading, UNTIL_THE_LIMIT);
});

test("nothing of what was loaded is to be seen", async () => {
  const script = [
    "echo $$; sh -c 'echo $$; true'",
    "ps -o pid,args",
    "ls -A / /tmp /dev/shm /dev/mqueue; cut -d' ' -f 4- /proc/self/mountinfo",
    "cd /sys/fs/cgroup; cat pids.peak memory.events cgroup.procs",
    "df -k / | awk '{print $2, $3}'",
  ].join("; ");
  const [expected, seen] = await Promise.all(
    [plain, loaded].map(async (box) => {
      await box.setup(SETUP);
      const { stdout, stderr } = await box.spawn(1, ["sh", "-c", script]);
      return box.finish(1, stdout, stderr);
    }),
  );
  assert.match(seen?.stdout ?? "", /^1\n2\n/);
  assert.deepEqual(seen, { ...expected, exit: seen?.exit });
  assert.equal(seen?.exit.code, 0);
  await assert.rejects(load(loaded, "sh"), invalid);
});

test("a program whose start was loaded runs as ever", async () => {
  const box = await TestContainer.boot();
  try {
    await box.machine.request("furnish", FURNISH);
    assert.notDeepEqual(await load(box, "maker"), NOT_AT_ALL);
    await box.setup(SETUP);
    await box.startInit();
    const before = await box.shell("ls /made");
    assert.equal(before.stdout, "");
    assert.equal((await box.run(["maker"])).exit.code, 0);
    assert.equal((await box.shell("ls /made")).stdout, "/made\n");
  } finally {
    await box.stop();
  }
});
