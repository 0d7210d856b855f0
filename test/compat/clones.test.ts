/** Machines restored from one template are no twins: what must differ differs, and their clocks are right. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { api } from "./harness/api.js";
import {
  docker,
  dockerOk,
  removeContainers,
  type RunningDocker,
  start,
  uniqueName,
} from "./harness/docker.js";
import { effort } from "./harness/effort.js";
import { busybox, environment } from "./harness/environment.js";
import { fault } from "./harness/figures.js";
import { eventually } from "./harness/wait.js";

const CLONES = effort(8, 50);
const CONNECTIONS = effort(4, 50);
/** How far a guest's clock may be from the host's, in ms. */
const CLOCK_MS = 100;
const CLOCK_TRIES = 5;

/**
 * A line each: what /dev/urandom, getrandom(2) (by way of the C library's names for temporary files), and the
 * kernel's UUIDs give; the boot ID; the MAC address; where stack, heap and vDSO are. Then the time, whenever
 * it is asked.
 */
const SCRIPT = [
  "head -c 32 /dev/urandom | od -An -v -w32 -tx1",
  "mktemp -u /tmp/XXXXXX",
  "cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id",
  "cat /sys/class/net/eth0/address",
  "grep -E 'stack|heap|vdso' /proc/self/maps | cut -d- -f1 | tr '\\n' ' '",
  "echo",
  "while read line; do adjtimex | grep -o 'time.*sec: .*' | tr -dc '0-9\\n' | tr '\\n' ' '; echo now; done",
].join("; ");
const FACTS = [
  "/dev/urandom",
  "getrandom",
  "UUID",
  "boot ID",
  "MAC address",
  "places in memory",
];

/** The first SYN of each container, as python sees it at the bridge: "SECONDS SEQUENCE-NUMBER". */
const LISTENER = `
import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
s.bind((sys.argv[1], 0))
print("listening", flush=True)
while True:
    p = s.recv(2048)
    now = time.time()
    tcp = 14 + (p[14] & 15) * 4
    if p[23] == 6 and p[tcp + 13] == 2 and p[tcp + 2:tcp + 4] == (5000).to_bytes(2, "big"):
        print("%.6f" % now, int.from_bytes(p[tcp + 4:tcp + 8], "big"), flush=True)
`;

describe("clones of a template", { timeout: 600_000 }, () => {
  const names: string[] = [];
  const network = uniqueName("clones");
  after(async () => {
    await removeContainers(...names);
    await docker(["network", "rm", network]);
  });

  /** How a container's machine came up. */
  async function startKind(name: string): Promise<string> {
    const { json } = await api("GET", `/hull/containers/${name}/start-trace`);
    return (json as { kind: string }).kind;
  }

  before(async () => {
    await eventually(
      async () => {
        const name = uniqueName("clone");
        names.push(name);
        await dockerOk(["run", "--name", name, busybox(), "true"]);
        assert.notEqual(await startKind(name), "cold");
      },
      { timeout: 120_000, what: "a machine is restored", interval: 1000 },
    );
  });

  test(`${CLONES} of them share no random number, ID, address or place in memory`, async (t) => {
    const clones = await Promise.all(
      Array.from({ length: CLONES }, async () => {
        const name = uniqueName("clone");
        names.push(name);
        const clone = start(
          ["run", "-i", "--name", name, busybox(), "sh", "-c", SCRIPT],
          { timeout: 300_000 },
        );
        await clone.stdoutMatches(/^(.*\n){6}/, 240_000);
        return { name, clone };
      }),
    );
    const facts = clones.map(({ clone }) => clone.stdout.trim().split("\n"));
    for (const [line, what] of FACTS.entries()) {
      const values = facts.map((fact) => fact[line] ?? "");
      assert(
        values.every((value) => value.length > 6),
        what,
      );
      assert.equal(new Set(values).size, CLONES, `${what}: ${values.join()}`);
    }
    for (const place of ["heap", "stack", "vdso"]) {
      const index = ["heap", "stack", "vdso"].indexOf(place);
      const values = facts.map((fact) => fact[5]?.split(" ")[index]);
      // Of one in some hundred million, not all are alike.
      assert(new Set(values).size > CLONES / 2, `${place}: ${values.join()}`);
    }
    for (const { name, clone } of clones) {
      assert.notEqual(await startKind(name), "cold");
      clone.stdin.end();
      assert.equal((await clone.result).code, 0);
    }
    fault(
      t,
      "clones compared: twins in a random number, ID, address or place",
      CLONES,
      0,
    );
  });

  test("each writes to a disk of its own, and sees nothing of the others'", async () => {
    const script =
      "ls / > /seen; hostname > /own-$(hostname); sync; ls -d /own-*; grep -c own /seen; true";
    const made = Array.from({ length: CLONES }, () => uniqueName("clone"));
    names.push(...made);
    const answers = await Promise.all(
      made.map((name) =>
        dockerOk(
          [
            ...["run", "--name", name, "--hostname", name, busybox()],
            ...["sh", "-c", script],
          ],
          { timeout: 300_000 },
        ).catch((error: unknown) => String(error)),
      ),
    );
    assert.deepEqual(
      answers,
      made.map((name) => `/own-${name}\n0`),
    );
    for (const name of made) {
      assert.notEqual(await startKind(name), "cold");
      const { stdout } = await docker(["diff", name]);
      assert.match(stdout, new RegExp(`^A /own-${name}$`, "m"));
      assert.equal(stdout.match(/own-/g)?.length, 1);
    }
  });

  test("their clocks are the host's", async () => {
    // One after the other: it takes a busy host a while to let a guest set its clock.
    const errors: number[] = [];
    for (let i = 0; i < 3; i++) {
      const clone = start(
        ["run", "-i", "--rm", busybox(), "sh", "-c", SCRIPT],
        { timeout: 120_000 },
      );
      await clone.stdoutMatches(/^(.*\n){6}/, 60_000);
      errors.push(await clockError(clone));
      clone.stdin.end();
      assert.equal((await clone.result).code, 0);
    }
    const [, median = NaN] = errors.sort((a, b) => a - b);
    assert(median <= CLOCK_MS, `wrong by ${errors.join(", ")} ms`);
  });

  test(
    "their TCP connections begin with numbers of their own",
    { skip: !environment().root },
    async () => {
      const subnet = "10.213.77.0/29";
      const id = await dockerOk([
        ...["network", "create", "--subnet", subnet, network],
      ]);
      const listener = spawn("python3", [
        ...["-c", LISTENER, `br-${id.slice(0, 12)}`],
      ]);
      let seen = "";
      listener.stdout.on("data", (chunk: Buffer) => (seen += chunk.toString()));
      try {
        await eventually(() => assert.match(seen, /listening/));
        for (let i = 0; i < CONNECTIONS; i++) {
          // All have the same addresses and ports, as these are part of the number.
          await docker([
            ...["run", "--rm", "--network", network, "--ip", "10.213.77.5"],
            ...[
              busybox(),
              "nc",
              "-p",
              "4000",
              "-w",
              "1",
              "10.213.77.1",
              "5000",
            ],
          ]);
          await eventually(() =>
            assert(seen.trim().split("\n").length > i + 1, seen),
          );
        }
      } finally {
        listener.kill();
        await once(listener, "exit");
      }
      const offsets = firstOfEach(seen.trim().split("\n").slice(1));
      assert.equal(offsets.length, CONNECTIONS, seen);
      // With the same secret they would be as far apart as the clocks of the two ends, some 2^20.
      let alike = 0;
      offsets.forEach((one, at) => {
        for (const other of offsets.slice(at + 1)) {
          const apart = Math.abs(one - other);
          if (Math.min(apart, 2 ** 32 - apart) < 2 ** 23) alike++;
        }
      });
      const pairs = (CONNECTIONS * (CONNECTIONS - 1)) / 2;
      assert(alike <= pairs / 4, `${alike} pairs of ${pairs}: ${seen}`);
    },
  );

  test("each has a machine ID of its own, where its image leaves that to the machine", async () => {
    const empty = uniqueName("machine-id");
    const maker = uniqueName("machine-id");
    const names = [uniqueName("machine-id"), uniqueName("machine-id")];
    try {
      await dockerOk([
        ...["run", "--name", maker, busybox(), "sh", "-c"],
        "true > /etc/machine-id",
      ]);
      await dockerOk(["commit", maker, empty]);
      const ids = [];
      for (const name of names) {
        const run = await dockerOk([
          ...["run", "--name", name, empty, "cat", "/etc/machine-id"],
        ]);
        assert.match(run, /^[0-9a-f]{32}$/);
        const again = await dockerOk(["start", "-a", name]);
        assert.equal(again, run, "it stays the same");
        ids.push(run);
      }
      assert.notEqual(ids[0], ids[1]);
      const step = await docker(["build", "--no-cache", "-"], {
        stdin: `FROM ${empty}\nRUN test ! -s /etc/machine-id && rm /etc/machine-id\n`,
        env: { DOCKER_BUILDKIT: "0" },
      });
      assert.equal(step.code, 0, step.stderr);
    } finally {
      await removeContainers(maker, ...names);
      await docker(["rmi", "-f", empty]);
    }
  });

  test("an image without /etc/machine-id gets none", async () => {
    const { code, stderr } = await docker([
      ...["run", "--rm", busybox(), "cat", "/etc/machine-id"],
    ]);
    assert.equal(code, 1);
    assert.match(stderr, /No such file/);
  });
});

/** By how many ms at least a guest's clock is wrong; 0 when it may be right. */
async function clockError(clone: RunningDocker): Promise<number> {
  let least = Infinity;
  for (let i = 1; i <= CLOCK_TRIES; i++) {
    const begun = Date.now();
    clone.stdin.write("\n");
    await clone.stdoutMatches(new RegExp(`(now\\n[^]*){${i}}`));
    const ended = Date.now();
    const answer = clone.stdout.trim().split("\n").at(-1) ?? "";
    const [seconds, micros] = answer.split(" ").map(Number);
    const told = (seconds ?? NaN) * 1000 + (micros ?? NaN) / 1000;
    least = Math.min(least, Math.max(begun - told, told - ended, 0));
  }
  return least;
}

/** The part of a sequence number that is no clock (RFC 6528): Linux adds 1 each 64 ns. Retries are left out. */
function firstOfEach(lines: string[]): number[] {
  const numbers = new Map<number, number>();
  for (const line of lines) {
    const [seconds = NaN, sequence = NaN] = line.split(" ").map(Number);
    if (numbers.has(sequence)) continue;
    const ticks = Math.floor((seconds * 1e9) / 64) % 2 ** 32;
    numbers.set(sequence, (sequence - ticks + 2 ** 32) % 2 ** 32);
  }
  return [...numbers.values()];
}
