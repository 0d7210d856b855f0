/** Machines that stand ready: a container gets one at once, and finds it as if nobody had been in it. */
import assert from "node:assert/strict";
import {
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
} from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { api } from "./harness/api.js";
import { Daemon, traceOf } from "./harness/daemon.js";
import { cliOf, uniqueName } from "./harness/docker.js";
import { environment, imageRef } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

const IMAGE = imageRef("busybox");
const SIZE = 2;

describe("the warm pool", { timeout: 240_000 }, () => {
  const daemon = new Daemon(path.join(environment().directory, "w"));
  const { ok } = cliOf(daemon);

  before(async () => {
    await daemon.start([
      ...["--warm", String(SIZE)],
      ...(environment().root ? ["--bridge", `hwp${process.pid}`] : []),
    ]);
    await ok(["pull", IMAGE]);
  });
  after(() => daemon.destroy());

  /** Resolves when the pool has all its machines. */
  const full = () =>
    eventually(
      async () => {
        const { text } = await api("GET", "/metrics", undefined, {}, daemon);
        assert.match(text, new RegExp(`^hull_warm_machines ${SIZE}$`, "m"));
      },
      { timeout: 60_000 },
    );

  /** Runs a container. @returns how its machine came up, and what it said */
  async function run(...args: string[]) {
    const name = uniqueName("warm");
    const stdout = await ok(["run", "--name", name, ...args]);
    const { kind } = traceOf(daemon, name);
    await ok(["rm", name]);
    return { kind, stdout };
  }

  test("a container gets a machine that stands ready, and another takes its place", async () => {
    await full();
    const before = daemon.spares().map(({ pid }) => pid);
    assert.deepEqual(await run(IMAGE, "echo", "hello"), {
      kind: "warm",
      stdout: "hello",
    });
    await full();
    const now = daemon.spares().map(({ pid }) => pid);
    assert.equal(now.length, SIZE);
    assert.equal(now.filter((pid) => before.includes(pid)).length, SIZE - 1);
  });

  test("it is awake when a container is made, and stands still again when that is not started", async () => {
    await full();
    const spent = () =>
      daemon.spares().map(({ pid }) => [pid, cpuOf(pid)] as const);
    await sleep(500);
    const before = new Map(spent());
    const name = uniqueName("warm");
    await ok(["create", "--name", name, IMAGE, "true"]);
    await sleep(1500);
    const woke = spent().filter(
      ([pid, ms]) => ms - (before.get(pid) ?? ms) > 1,
    );
    assert.equal(woke.length, 1);
    const [pid, ms] = woke[0] ?? assert.fail();
    await sleep(1500);
    assert.ok(cpuOf(pid) - ms < 1, `${cpuOf(pid) - ms} ms`);
    await ok(["start", "-a", name]);
    assert.equal(traceOf(daemon, name).kind, "warm");
    assert.ok(!daemon.spares().some((spare) => spare.pid === pid));
    await ok(["rm", name]);
  });

  test("nothing of what it did before is to be seen", async () => {
    await full();
    const question = [
      "hostname; ps -o args; ls -A /tmp /dev/shm /dev/mqueue",
      "cat /proc/net/arp /proc/net/unix /proc/sysvipc/shm | grep -v '^ *Num\\|^ *key\\|^IP'",
      "cat /sys/class/net/eth0/statistics/*x_packets",
      "cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/pids.events",
      "find / -xdev -name '*rehears*'",
      "grep -l rehears /proc/mounts /etc/* /proc/sys/kernel/*name",
      "df / | tail -1 | tr -s ' ' | cut -d ' ' -f 3",
    ];
    const shell = ["sh", "-c", question.join("; echo -; ")];
    const flags = ["--hostname", "clean", "--network", "none"];
    const warm = await run(...flags, IMAGE, ...shell);
    assert.equal(warm.kind, "warm");
    // A size of its own: no machine of the pool serves.
    const other = await run(...flags, "--memory", "100m", IMAGE, ...shell);
    assert.notEqual(other.kind, "warm");
    assert.equal(warm.stdout, other.stdout);
  });

  test("containers that come one after the other have nothing in common", async () => {
    const question =
      "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/boot_id";
    const lines: string[] = [];
    for (let i = 0; i < 3; i++) {
      await full();
      const { kind, stdout } = await run(IMAGE, "sh", "-c", question);
      assert.equal(kind, "warm");
      lines.push(...stdout.split("\n"));
    }
    assert.equal(new Set(lines).size, 6, lines.join("\n"));
  });

  /** Resolves when the pool has had the time to be furnished for that image. */
  async function furnished(image: string) {
    await run(image, "true");
    await full();
  }

  test("a machine that was furnished for the image serves an ordinary container of it", async () => {
    await furnished(IMAGE);
    const name = uniqueName("warm");
    const shell =
      "cat /etc/hostname /etc/hosts | grep -c named; echo mine > /mine; grep -c /etc/hosts /proc/mounts";
    const flags = ["--name", name, "--hostname", "named"];
    assert.equal(await ok(["run", ...flags, IMAGE, "sh", "-c", shell]), "2\n1");
    const { kind, text } = traceOf(daemon, name);
    assert.equal(kind, "warm");
    // Its root was there.
    assert.doesNotMatch(text, /rootfs/);
    // What it wrote is on its own disk now, which no other machine's is.
    await full();
    await ok(["start", name]);
    await ok(["wait", name]);
    const { kind: again } = traceOf(daemon, name);
    assert.equal(again, "warm");
    assert.match(await ok(["diff", name]), /^A \/mine$/m);
    await ok(["rm", name]);
    await full();
    const other = await run(
      IMAGE,
      "sh",
      "-c",
      "ls /mine 2>&1 | wc -l; df / | tail -1 | tr -s ' ' | cut -d ' ' -f 3",
    );
    assert.match(other.stdout, /^1\n/);
  });

  test("of a program that was loaded ahead nothing is to be seen, and none holds up the pool", async () => {
    const maker = uniqueName("warm");
    const image = uniqueName("loaded");
    const programs = {
      "/spin": "while :; do :; done",
      "/wait": "read line < /fifo",
      "/tell": "echo told; echo > /made",
    };
    const script = Object.entries(programs)
      .map(([file, text]) => `echo '#!/bin/sh\n${text}' > ${file}`)
      .join("; ");
    const make = `mkfifo /fifo; ${script}; chmod +x /spin /wait /tell`;
    await ok(["run", "--name", maker, IMAGE, "sh", "-c", make]);
    await ok(["commit", maker, image]);
    await ok(["rm", maker]);
    for (const file of Object.keys(programs)) {
      await full();
      const name = uniqueName("warm");
      await ok(["run", "-d", "--name", name, image, file]);
      await ok(["rm", "-f", name]);
      await full();
      const next = uniqueName("warm");
      const question =
        "echo $$; sh -c 'echo $$; true'; ls -A / | grep made; ps -o args | grep '[s]pin\\|[w]ait\\|[t]ell'; true";
      const args = ["--name", next, image, "sh", "-c", question];
      assert.equal(await ok(["run", ...args]), "1\n2", file);
      const { kind, text } = traceOf(daemon, next);
      assert.equal(kind, "warm");
      assert.doesNotMatch(text, /rootfs/, file);
      await ok(["rm", next]);
    }
    await ok(["rmi", image]);
  });

  test("files that were copied into a container before its first start are there", async () => {
    await furnished(IMAGE);
    const name = uniqueName("warm");
    await ok(["create", "--name", name, IMAGE, "cat", "/copied"]);
    await ok(["cp", import.meta.filename, `${name}:/copied`]);
    await full();
    assert.match(await ok(["start", "-a", name]), /were copied into/);
    await ok(["rm", name]);
  });

  test("containers that are not ordinary start in other machines", async () => {
    for (const flags of [
      ["--privileged"],
      ["--shm-size", "10m"],
      ["--tmpfs", "/t"],
      ["--read-only"],
      ["--network", "none"],
    ]) {
      await furnished(IMAGE);
      const { stdout } = await run(...flags, IMAGE, "echo", "ready");
      assert.equal(stdout, "ready", flags.join(" "));
    }
  });

  /** Whether machines are forked: it takes root, and an emulated processor. */
  async function forks(): Promise<boolean> {
    const status = await ok(["info", "-f", "{{.DriverStatus}}"]);
    return environment().root && /Accelerator tcg/.test(status);
  }

  test("its machines are forked from two that stand still, and share their memory", async (t) => {
    await furnished(IMAGE);
    if (!(await forks())) return t.skip("machines are not forked here");
    await eventually(() => assert.equal(daemon.zygotes().length, 2), {
      timeout: 30_000,
    });
    await full();
    const [any, special] = byOrigin(daemon.zygotes());
    assert.equal(parentOf(special), any);
    for (const { pid } of daemon.spares()) {
      // One that is furnished has read the image's program.
      assert(privateMB(pid) < 15, `${privateMB(pid)} MB`);
    }
    assert.deepEqual(
      daemon
        .spares()
        .map(({ pid }) => parentOf(pid))
        .sort(),
      [any, special].sort(),
    );
    const name = uniqueName("warm");
    await ok(["run", "-d", "--name", name, IMAGE, "sleep", "1000"]);
    const pid = await ok(["inspect", "-f", "{{.State.Pid}}", name]);
    assert(privateMB(Number(pid)) < 30, `${privateMB(Number(pid))} MB`);
    await ok(["rm", "-f", name]);
  });

  test("more starts at once than it has machines have nothing in common either", async () => {
    const question =
      "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/boot_id; ip link show eth0 | grep ether";
    await full();
    const runs = await Promise.all(
      Array.from({ length: SIZE + 3 }, () => run(IMAGE, "sh", "-c", question)),
    );
    const lines = runs.flatMap(({ stdout }) => stdout.split("\n"));
    assert.equal(new Set(lines).size, 3 * runs.length, lines.join("\n"));
  });

  test("when the zygote is killed, what was forked from it goes on, and another is made", async (t) => {
    await full();
    if (!(await forks())) return t.skip("machines are not forked here");
    const name = uniqueName("warm");
    await ok(["run", "-d", "--name", name, IMAGE, "sleep", "1000"]);
    await eventually(() => assert.equal(daemon.zygotes().length, 2), {
      timeout: 30_000,
    });
    const [zygote] = byOrigin(daemon.zygotes());
    process.kill(zygote, "SIGKILL");
    assert.equal(await ok(["exec", name, "echo", "there"]), "there");
    assert.equal((await run(IMAGE, "echo", "hello")).stdout, "hello");
    await eventually(
      () => {
        assert.equal(daemon.zygotes().length, 2);
        assert.ok(!daemon.zygotes().includes(zygote));
      },
      { timeout: 30_000 },
    );
    // A machine may have been asked of it before its end was noticed.
    const told = /the zygote ended|could not be forked/g;
    assert.equal(daemon.logTail(1000).match(told)?.length, 1);
    await ok(["rm", "-f", name]);
  });

  test("when its machines are killed, containers start by the slower way", async () => {
    await full();
    for (const { pid } of daemon.spares()) process.kill(pid, "SIGKILL");
    const { kind, stdout } = await run(IMAGE, "echo", "all the same");
    assert.equal(stdout, "all the same");
    assert.notEqual(kind, "warm");
    const ended = daemon
      .logTail(1000)
      .split("\n")
      .filter((line) =>
        /a machine of the warm pool (ended|does not)/.test(line),
      );
    assert.equal(ended.length, SIZE);
    await full();
    // Their folders have gone with them.
    const folders = () =>
      readdirSync(path.join(daemon.execRoot, "m")).filter((name) =>
        /^(blank|zygote)-/.test(name),
      ).length;
    await eventually(() =>
      assert.equal(folders(), SIZE + daemon.zygotes().length),
    );
  });

  test("a daemon that ends takes its pool along; one that is killed leaves it to the next", async () => {
    await full();
    const killed = daemon.spares().map(({ pid }) => pid);
    await daemon.crashAndRestart();
    await full();
    const now = daemon.spares().map(({ pid }) => pid);
    assert.equal(now.length, SIZE);
    assert.deepEqual(
      now.filter((pid) => killed.includes(pid)),
      [],
    );
    await daemon.stop("SIGTERM");
    assert.deepEqual(daemon.spares(), []);
  });
});

describe("without a pool", { timeout: 240_000 }, () => {
  const daemon = new Daemon(path.join(environment().directory, "wn"));
  const { ok } = cliOf(daemon);
  const bridge = environment().root ? ["--bridge", `hwn${process.pid}`] : [];
  after(() => daemon.destroy());

  async function metric(name: string): Promise<number> {
    const { text } = await api("GET", "/metrics", undefined, {}, daemon);
    return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1]);
  }

  const zygotes = (count: number) =>
    eventually(
      async () => {
        assert.equal(await metric("hull_zygotes"), count);
        // One that was killed counts until its end is noticed.
        assert.equal(daemon.zygotes().length, count);
      },
      { timeout: 60_000 },
    );

  /** @returns the trace of a container of the image */
  async function started(image = IMAGE) {
    const name = uniqueName("warm");
    await ok(["run", "--name", name, image, "true"]);
    const trace = traceOf(daemon, name);
    await ok(["rm", name]);
    return trace;
  }

  let forks = false;
  const skip = "machines are not forked here";

  test("machines are forked all the same", async (t) => {
    await daemon.start(["--warm", "0", ...bridge]);
    await ok(["pull", IMAGE]);
    const status = await ok(["info", "-f", "{{.DriverStatus}}"]);
    forks = environment().root && /Accelerator tcg/.test(status);
    if (!forks) return t.skip(skip);
    await zygotes(1);
    const { kind, text } = await started();
    assert.equal(kind, "forked");
    assert.match(text, /rootfs/);
    assert.deepEqual(daemon.spares(), []);
  });

  test("the next container of the image comes from one that has it mounted", async (t) => {
    if (!forks) return t.skip(skip);
    await zygotes(2);
    const { kind, text } = await started();
    assert.equal(kind, "forked");
    assert.doesNotMatch(text, /rootfs/);
  });

  test("what such a machine writes is on its container's disk only", async (t) => {
    if (!forks) return t.skip(skip);
    await zygotes(2);
    const name = uniqueName("warm");
    await ok(["run", "-d", "--name", name, IMAGE, "sleep", "1000"]);
    const pid = Number(await ok(["inspect", "-f", "{{.State.Pid}}", name]));
    const [, special] = byOrigin(daemon.zygotes());
    assert.equal(parentOf(pid), special);
    const id = await ok(["inspect", "-f", "{{.Id}}", name]);
    const disks = openDisks(pid);
    assert.deepEqual(
      new Set(disks.map((one) => path.basename(path.dirname(one)))),
      new Set([id]),
    );
    const [frozen = ""] = openDisks(special);
    const before = statSync(frozen).mtimeMs;
    await ok(["exec", name, "sh", "-c", "echo mine > /mine; sync"]);
    assert.equal(statSync(frozen).mtimeMs, before);
    // QEMU has locked its disk, as it does when it opens one itself.
    const { ino } = statSync(disks[0] ?? "");
    assert.match(readFileSync("/proc/locks", "utf8"), new RegExp(`:${ino} `));
    await ok(["rm", "-f", name]);
  });

  test("when it cannot be forked, a container's machine is one for any image", async (t) => {
    if (!forks) return t.skip(skip);
    await zygotes(2);
    const [, special] = byOrigin(daemon.zygotes());
    for (const disk of openDisks(special)) rmSync(disk, { force: true });
    const { kind, text } = await started();
    assert.equal(kind, "forked");
    assert.match(text, /rootfs/);
    const told = /no machine could be forked for the image.*/g;
    assert.equal(daemon.logTail(1000).match(told)?.length, 1);
    await zygotes(2);
    assert.doesNotMatch((await started()).text, /rootfs/);
  });

  test("those that are killed are replaced", async (t) => {
    if (!forks) return t.skip(skip);
    for (const which of [1, 0]) {
      await zygotes(2);
      const killed = byOrigin(daemon.zygotes())[which] ?? 0;
      process.kill(killed, "SIGKILL");
      await eventually(
        () => {
          assert.equal(daemon.zygotes().length, 2);
          assert.ok(!daemon.zygotes().includes(killed));
        },
        { timeout: 30_000 },
      );
    }
    await zygotes(2);
    assert.doesNotMatch((await started()).text, /rootfs/);
  });

  test("an image that is removed is let go", async (t) => {
    if (!forks) return t.skip(skip);
    await zygotes(2);
    await ok(["rmi", IMAGE]);
    await zygotes(1);
    assert.equal(daemon.zygotes().length, 1);
    await ok(["pull", IMAGE]);
    assert.equal((await started()).kind, "forked");
    await zygotes(2);
  });

  test("machines of the pool rehearse by themselves without a zygote", async () => {
    await daemon.stop("SIGTERM");
    assert.deepEqual(daemon.zygotes(), []);
    await daemon.start(["--warm", "1", "--zygote", "off", ...bridge]);
    await eventually(
      async () => assert.equal(await metric("hull_warm_machines"), 1),
      { timeout: 60_000 },
    );
    assert.equal(await metric("hull_zygotes"), 0);
    assert.deepEqual(daemon.zygotes(), []);
    assert.equal((await started()).kind, "warm");
  });
});

function parentOf(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^PPid:\s+(\d+)$/m.exec(status)?.[1]);
}

/** Two zygotes: the one for any image, and the one that was forked from it. */
function byOrigin(zygotes: number[]): [number, number] {
  const [one = 0, other = 0] = zygotes;
  return parentOf(other) === one ? [one, other] : [other, one];
}

/** The writable disks that a process has open. */
function openDisks(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  const files = readdirSync(folder).map((fd) =>
    readlinkSync(path.join(folder, fd)),
  );
  const disks = files.filter((file) => file.endsWith(".img"));
  assert.ok(disks.length > 0, files.join());
  return disks;
}

/** What would be free without the process. */
function privateMB(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const lines = [...text.matchAll(/^Private_\w+: +(\d+) kB$/gm)];
  return lines.reduce((sum, [, kib]) => sum + Number(kib), 0) / 1000;
}

/** CPU time that all of a process's threads have had, in ms. */
function cpuOf(pid: number): number {
  const folder = `/proc/${pid}/task`;
  const spent = readdirSync(folder).map((thread) =>
    Number(
      readFileSync(path.join(folder, thread, "schedstat"), "utf8").split(
        " ",
      )[0],
    ),
  );
  return spent.reduce((sum, ns) => sum + ns, 0) / 1e6;
}
