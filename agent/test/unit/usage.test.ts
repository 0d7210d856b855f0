import assert from "node:assert/strict";
import { test } from "node:test";
import {
  countCpus,
  parseDevices,
  parseFlat,
  parseInterfaces,
  parseLimit,
} from "../../src/usage.js";

test("control files of the kernel's forms are read", () => {
  assert.deepEqual(parseFlat("usage_usec 12\nuser_usec 7\n"), {
    usage_usec: 12,
    user_usec: 7,
  });
  assert.deepEqual(["max\n", "", "50\n"].map(parseLimit), [-1, -1, 50]);
  assert.deepEqual(
    parseDevices("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n7:1\n"),
    [
      {
        major: 254,
        minor: 0,
        readBytes: 1,
        writtenBytes: 2,
        reads: 3,
        writes: 4,
      },
    ],
  );
});

test("the machine's CPUs are counted, and the line of all of them is not", () => {
  const text =
    "cpu  1 2 3 4 5 6 7 8 100 100\ncpu0 1 2 3 4 5 6 7 8 100 100\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 1\n";
  assert.equal(countCpus(text), 2);
});

test("interfaces without lo", () => {
  const text = [
    "Inter-|   Receive                                                |  Transmit",
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed",
    "    lo:       9       9    0    0    0     0          0         0        9       9    0    0    0     0       0          0",
    "  eth0:    1000      10    1    2    0     0          0         0     2000      20    3    4    0     0       0          0",
    "",
  ].join("\n");
  assert.deepEqual(parseInterfaces(text), [
    {
      name: "eth0",
      rx: { bytes: 1000, packets: 10, errors: 1, dropped: 2 },
      tx: { bytes: 2000, packets: 20, errors: 3, dropped: 4 },
    },
  ]);
});
