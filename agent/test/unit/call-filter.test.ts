import assert from "node:assert/strict";
import { test } from "node:test";
import { callProgram } from "../../src/call-filter.js";

const X86_64 = 0xc000003e;
const I386 = 0x40000003;
const ALLOW = 0x7fff0000;
const KILL_PROCESS = 0x80000000;

/** Runs the program as the kernel would; throws on what it does not know. */
function allows(
  call: number,
  args: readonly number[] = [],
  architecture = X86_64,
): boolean {
  const program = new DataView(callProgram());
  assert(program.byteLength / 8 <= 4096, "more than the kernel takes");
  const context = new Map([
    [0, call],
    [4, architecture],
    ...args.map((value, i) => [16 + 8 * i, value] as const),
  ]);
  let accumulator = 0;
  for (let at = 0; ; at++) {
    const value = program.getUint32(8 * at + 4, true);
    switch (program.getUint16(8 * at, true)) {
      case 0x20:
        accumulator = context.get(value) ?? 0;
        break;
      case 0x54:
        accumulator = (accumulator & value) >>> 0;
        break;
      case 0x15:
        at += program.getUint8(8 * at + (accumulator === value ? 2 : 3));
        break;
      case 0x06:
        assert(value === ALLOW || value === KILL_PROCESS);
        return value === ALLOW;
      default:
        assert.fail(`instruction ${at}`);
    }
  }
}

const O_CLOEXEC = 0o2000000;
const O_DIRECTORY = 0o200000;

test("files are opened for reading only", () => {
  for (const [call, before] of [
    [2, [0]],
    [257, [0, 0]],
  ] as const) {
    for (const flags of [0, O_CLOEXEC, O_CLOEXEC | O_DIRECTORY])
      assert.equal(allows(call, [...before, flags]), true, `${flags}`);
    // Written to, made, cut, made without a name.
    for (const flags of [1, 2, 3, 0o100, 0o1000, 0o20200000])
      assert.equal(
        allows(call, [...before, flags | O_CLOEXEC]),
        false,
        `${flags}`,
      );
  }
});

test("memory is mapped privately", () => {
  const map = (flags: number) => allows(9, [0, 4096, 3, flags]);
  assert.equal(map(0x22), true);
  assert.equal(map(0x812), true);
  for (const shared of [1, 3, 0x21]) assert.equal(map(shared), false);
});

test("a terminal is asked for, never told anything", () => {
  for (const [request, allowed] of [
    [0x5401, true],
    [0x5413, true],
    [0x5402, false],
    [0x5412, false],
  ] as const)
    assert.equal(allows(16, [0, request]), allowed);
});

test("limits are read, never set", () => {
  assert.equal(allows(302, [0, 3, 0]), true);
  assert.equal(allows(302, [0, 3, 0x1000]), false);
});

test("what a loader does is allowed", () => {
  for (const call of [0, 3, 5, 10, 11, 12, 13, 17, 158, 218, 273, 318, 334])
    assert.equal(allows(call), true, `${call}`);
});

test("what has an effect on others is not", () => {
  const calls = {
    write: 1,
    socket: 41,
    clone: 56,
    fork: 57,
    kill: 62,
    rename: 82,
    mkdir: 83,
    unlink: 87,
    chmod: 90,
    setuid: 105,
    mount: 165,
    setxattr: 188,
    tgkill: 234,
    utimensat: 280,
    execveat: 322,
    io_uring_setup: 425,
    clone3: 435,
    openat2: 437,
  };
  for (const [name, call] of Object.entries(calls))
    assert.equal(allows(call), false, name);
});

test("calls of other architectures are not, whatever their numbers mean here", () => {
  assert.equal(allows(12, [], I386), false);
  // x32
  assert.equal(allows(0x40000000 | 12), false);
});
