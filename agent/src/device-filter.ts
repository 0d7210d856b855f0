/**
 * Which devices a container's processes may open: Docker's default list. Control groups (version 2) ask
 * a small BPF program, which this file puts together instruction by instruction. Device numbers made
 * with mknod(2), which is allowed, are of no use beyond the list: the machine's disks stay closed.
 */
import { step } from "./failure.js";

interface Rule {
  major: number;
  /** All of the major number's devices when absent. */
  minor?: number;
}

/** Character devices that may be read and written. */
const ALLOWED: readonly Rule[] = [
  { major: 1, minor: 3 }, // null
  { major: 1, minor: 5 }, // zero
  { major: 1, minor: 7 }, // full
  { major: 1, minor: 8 }, // random
  { major: 1, minor: 9 }, // urandom
  { major: 5, minor: 0 }, // tty
  { major: 5, minor: 1 }, // console
  { major: 5, minor: 2 }, // ptmx
  { major: 136 }, // pts
];

/** Refuses all other devices to the processes of a cgroup. @param cgroup a descriptor of its folder */
export function filterDevices(cgroup: number): void {
  step("filter devices", () => sys.filterDevices(cgroup, deviceProgram()));
}

// linux/bpf.h: operations of the classes LDX, ALU64 and JMP that are used here.
const LOAD_WORD = 0x61;
const MOVE = 0xb7;
const MOVE_REGISTER = 0xbf;
const AND = 0x57;
const SHIFT_RIGHT = 0x77;
const IF_EQUAL = 0x15;
const IF_NOT_EQUAL = 0x55;
const EXIT = 0x95;
/** struct bpf_cgroup_dev_ctx: three 32-bit words. */
const ACCESS_AND_TYPE = 0;
const MAJOR = 4;
const MINOR = 8;
const ACCESS_MKNOD = 1;
const TYPE_CHARACTER = 2;

/** The program's instructions, 8 bytes each. */
export function deviceProgram(): ArrayBuffer {
  const code: [
    operation: number,
    target: number,
    source: number,
    offset: number,
    value: number,
  ][] = [
    [LOAD_WORD, 2, 1, ACCESS_AND_TYPE, 0],
    [MOVE_REGISTER, 3, 2, 0, 0],
    [SHIFT_RIGHT, 3, 0, 0, 16],
    [AND, 2, 0, 0, 0xffff],
    [LOAD_WORD, 4, 1, MAJOR, 0],
    [LOAD_WORD, 5, 1, MINOR, 0],
    [MOVE, 0, 0, 0, 1],
    // Making a node is harmless.
    [IF_NOT_EQUAL, 3, 0, 1, ACCESS_MKNOD],
    [EXIT, 0, 0, 0, 0],
    [IF_EQUAL, 2, 0, 2, TYPE_CHARACTER],
    [MOVE, 0, 0, 0, 0],
    [EXIT, 0, 0, 0, 0],
  ];
  for (const { major, minor } of ALLOWED) {
    code.push([IF_NOT_EQUAL, 4, 0, minor === undefined ? 1 : 2, major]);
    if (minor !== undefined) code.push([IF_NOT_EQUAL, 5, 0, 1, minor]);
    code.push([EXIT, 0, 0, 0, 0]);
  }
  code.push([MOVE, 0, 0, 0, 0], [EXIT, 0, 0, 0, 0]);

  const bytes = new ArrayBuffer(code.length * 8);
  const view = new DataView(bytes);
  code.forEach(([operation, target, source, offset, value], i) => {
    view.setUint8(8 * i, operation);
    view.setUint8(8 * i + 1, target | (source << 4));
    view.setInt16(8 * i + 2, offset, true);
    view.setInt32(8 * i + 4, value, true);
  });
  return bytes;
}
