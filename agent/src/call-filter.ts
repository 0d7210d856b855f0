/**
 * Which system calls a program may make that is only loaded (loading.ts): those of a dynamic loader and of a C
 * library that initialises itself. None of them has an effect outside of the process: what it opens it can only
 * read, what it maps is its own, and at the first other call it is killed. seccomp(2) asks a small BPF program,
 * which this file puts together instruction by instruction.
 */
import { step } from "./failure.js";

/** A call, or one that is allowed only where an argument's lower word, masked, has a value. */
type Rule =
  | number
  | { call: number; argument: number; mask: number; values: readonly number[] };

const O_ACCMODE = 3;
const O_CREAT = 0o100;
const O_TRUNC = 0o1000;
/** Without O_DIRECTORY, which is part of it. */
const O_TMPFILE = 0o20000000;
const OPENS_FOR_READING = {
  mask: O_ACCMODE | O_CREAT | O_TRUNC | O_TMPFILE,
  values: [0],
};

/** Numbers of asm/unistd_64.h. */
const ALLOWED: readonly Rule[] = [
  // Memory. What is written to a private mapping nobody else sees.
  12, // brk
  { call: 9, argument: 3, mask: 0xf, values: [2] }, // mmap: MAP_PRIVATE
  10, // mprotect
  11, // munmap
  25, // mremap
  28, // madvise
  // Files, for reading.
  { call: 2, argument: 1, ...OPENS_FOR_READING }, // open
  { call: 257, argument: 2, ...OPENS_FOR_READING }, // openat
  0, // read
  17, // pread64
  19, // readv
  8, // lseek
  3, // close
  4, // stat
  5, // fstat
  6, // lstat
  262, // newfstatat
  332, // statx
  137, // statfs
  138, // fstatfs
  21, // access
  269, // faccessat
  439, // faccessat2
  89, // readlink
  267, // readlinkat
  217, // getdents64
  79, // getcwd
  // fcntl: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC
  { call: 72, argument: 1, mask: -1, values: [0, 1, 2, 3, 1030] },
  // ioctl: TCGETS, TIOCGWINSZ
  { call: 16, argument: 1, mask: -1, values: [0x5401, 0x5413] },
  // Itself: its threads' and signals' bookkeeping, its limits, and who it is.
  158, // arch_prctl
  218, // set_tid_address
  273, // set_robust_list
  334, // rseq
  202, // futex
  13, // rt_sigaction
  14, // rt_sigprocmask
  15, // rt_sigreturn
  131, // sigaltstack
  { call: 157, argument: 0, mask: -1, values: [15, 16] }, // prctl: PR_SET_NAME, PR_GET_NAME
  { call: 302, argument: 2, mask: -1, values: [0] }, // prlimit64, without new ones
  97, // getrlimit
  98, // getrusage
  204, // sched_getaffinity
  39, // getpid
  110, // getppid
  111, // getpgrp
  186, // gettid
  102, // getuid
  104, // getgid
  107, // geteuid
  108, // getegid
  115, // getgroups
  118, // getresuid
  120, // getresgid
  // The machine.
  63, // uname
  99, // sysinfo
  318, // getrandom
  96, // gettimeofday
  201, // time
  228, // clock_gettime
  229, // clock_getres
  // To become the program, or another: the filter stays.
  59, // execve
  60, // exit
  231, // exit_group
];

/** Holds the calling process to that, once and for all. It must have given up the gain of privileges. */
export function filterCalls(): void {
  step("filter system calls", () => sys.filterCalls(callProgram()));
}

// linux/bpf_common.h, linux/seccomp.h, linux/audit.h
const LOAD_WORD = 0x20;
const AND = 0x54;
const IF_EQUAL = 0x15;
const RETURN = 0x06;
const ALLOW = 0x7fff0000;
const KILL_PROCESS = 0x80000000;
const X86_64 = 0xc000003e;
/** struct seccomp_data */
const NUMBER = 0;
const ARCHITECTURE = 4;
const ARGUMENTS = 16;

/** The program's instructions, 8 bytes each. */
export function callProgram(): ArrayBuffer {
  const code: [
    operation: number,
    value: number,
    skipWhenTrue?: number,
    skipWhenFalse?: number,
  ][] = [
    [LOAD_WORD, ARCHITECTURE],
    [IF_EQUAL, X86_64, 1, 0],
    [RETURN, KILL_PROCESS],
    [LOAD_WORD, NUMBER],
  ];
  for (const rule of ALLOWED) {
    if (typeof rule === "number") {
      code.push([IF_EQUAL, rule, 0, 1], [RETURN, ALLOW]);
      continue;
    }
    const { call, argument, mask, values } = rule;
    code.push(
      [IF_EQUAL, call, 0, 2 * values.length + 3],
      [LOAD_WORD, ARGUMENTS + 8 * argument],
      [AND, mask],
    );
    for (const value of values)
      code.push([IF_EQUAL, value, 0, 1], [RETURN, ALLOW]);
    code.push([RETURN, KILL_PROCESS]);
  }
  code.push([RETURN, KILL_PROCESS]);

  const bytes = new ArrayBuffer(code.length * 8);
  const view = new DataView(bytes);
  code.forEach(([operation, value, skipWhenTrue = 0, skipWhenFalse = 0], i) => {
    view.setUint16(8 * i, operation, true);
    view.setUint8(8 * i + 2, skipWhenTrue);
    view.setUint8(8 * i + 3, skipWhenFalse);
    view.setUint32(8 * i + 4, value, true);
  });
  return bytes;
}
