import assert from "node:assert/strict";
import { test } from "node:test";
import { deviceProgram } from "../../src/device-filter.js";

const MKNOD = 1;
const READ = 2;
const WRITE = 4;
const BLOCK = 1;
const CHARACTER = 2;

/** Runs the program as the kernel would; throws on what it does not know. */
function allows(
  type: number,
  major: number,
  minor: number,
  access: number,
): boolean {
  const program = new DataView(deviceProgram());
  const context = [(access << 16) | type, major, minor];
  const registers = new Array<number>(11).fill(0);
  for (let at = 0; ; at++) {
    const operation = program.getUint8(8 * at);
    const target = program.getUint8(8 * at + 1) & 15;
    const source = program.getUint8(8 * at + 1) >> 4;
    const offset = program.getInt16(8 * at + 2, true);
    const value = program.getInt32(8 * at + 4, true);
    const old = registers[target] ?? 0;
    switch (operation) {
      case 0x61:
        assert.equal(source, 1, "only the context is read");
        registers[target] = context[offset / 4] ?? assert.fail("out of range");
        break;
      case 0xb7:
        registers[target] = value;
        break;
      case 0xbf:
        registers[target] = registers[source] ?? 0;
        break;
      case 0x57:
        registers[target] = old & value;
        break;
      case 0x77:
        registers[target] = old >>> value;
        break;
      case 0x15:
        if (old === value) at += offset;
        break;
      case 0x55:
        if (old !== value) at += offset;
        break;
      case 0x95:
        return registers[0] === 1;
      default:
        assert.fail(`operation ${operation}`);
    }
  }
}

test("the devices of a container's /dev may be read and written", () => {
  for (const [major, minor] of [
    [1, 3],
    [1, 5],
    [1, 7],
    [1, 8],
    [1, 9],
    [5, 0],
    [5, 1],
    [5, 2],
    [136, 0],
    [136, 77],
  ] as const) {
    for (const access of [READ, WRITE, READ | WRITE])
      assert.equal(
        allows(CHARACTER, major, minor, access),
        true,
        `${major}:${minor}`,
      );
  }
});

test("every other device is closed, and block devices of the same numbers", () => {
  for (const [major, minor] of [
    [1, 1],
    [1, 11],
    [5, 3],
    [4, 64],
    [10, 229],
    [229, 0],
    [254, 0],
    [137, 0],
  ] as const)
    assert.equal(
      allows(CHARACTER, major, minor, READ),
      false,
      `${major}:${minor}`,
    );
  assert.equal(allows(BLOCK, 1, 3, READ), false);
  assert.equal(allows(BLOCK, 254, 0, READ | WRITE), false);
});

test("nodes may be made, but not opened in the same breath", () => {
  assert.equal(allows(BLOCK, 254, 0, MKNOD), true);
  assert.equal(allows(CHARACTER, 10, 229, MKNOD), true);
  assert.equal(allows(BLOCK, 254, 0, MKNOD | READ), false);
});
