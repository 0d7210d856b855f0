import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import {
  Channel,
  FrameType,
  WINDOW,
  type ProcessInfo,
  streamOf,
} from "../../../protocol/index.js";
import { TestContainer } from "./container.js";
import { Refused } from "./machine.js";

let box: TestContainer;

before(async () => {
  box = await TestContainer.boot();
  await box.setup({
    files: [
      { path: "/etc/hosts", content: "127.0.0.1\tlocalhost\n", mode: 0o644 },
      {
        path: "/etc/resolv.conf",
        content: "nameserver 172.17.0.1\n",
        mode: 0o644,
      },
      { path: "/link/planted", content: "inside\n", mode: 0o644 },
    ],
    mounts: [
      {
        type: "tmpfs",
        target: "/scratch/deep",
        options: ["noexec", "size=1m", "mode=0770", "uid=1000"],
      },
    ],
    limits: { memoryBytes: 96 << 20, memorySwapBytes: 96 << 20, pids: 50 },
    maskedPaths: ["/proc/devices", "/sys/firmware", "/proc/not-there"],
    sysctls: { "net.core.somaxconn": "999", "kernel.shmmax": "123456" },
    machineId: "0123456789abcdef0123456789abcdef",
    domainname: "example.org",
    hostname: "box.example",
  });
  await box.startInit();
});

after(() => box?.stop());

async function refusal(
  args: string[],
  options = {},
): Promise<Refused["error"]> {
  try {
    await box.run(args, options);
  } catch (error) {
    assert.ok(error instanceof Refused, String(error));
    return error.error;
  }
  return assert.fail("it was started");
}

describe("a process", () => {
  test("gets its arguments, environment and folder, and its exit code is told", async () => {
    const result = await box.run(
      ["sh", "-c", 'echo "$0|$1|$X|$HOME|$(pwd)" >&2; exit 7', "a b", "é"],
      {
        env: ["PATH=/bin", "X=first", "X=ünï"],
        cwd: "/home/app",
      },
    );
    assert.equal(result.stderr, "a b|é|ünï|/root|/home/app\n");
    assert.equal(result.stdout, "");
    assert.deepEqual(
      { ...result.exit, at: 0 },
      { code: 7, signal: 0, oomKilled: false, at: 0 },
    );
    assert.ok(
      Math.abs(result.exit.at - Date.now()) < 5000,
      "the clock is the host's",
    );
  });

  test("runs with Docker's defaults: signals, umask, limits, capabilities", async () => {
    const { stdout } = await box.shell(
      "grep -E '^(Sig(Blk|Ign)|Cap(Bnd|Eff|Inh|Amb)|NoNewPrivs)' /proc/self/status; umask; ulimit -n; cat /proc/self/oom_score_adj",
      { rlimits: [{ name: "nofile", soft: 100, hard: 200 }], oomScoreAdj: 5 },
    );
    assert.deepEqual(stdout.trim().split(/\s+/), [
      ...["SigBlk:", "0000000000000000", "SigIgn:", "0000000000000000"],
      ...["CapInh:", "0000000000000000", "CapEff:", "00000000a80425fb"],
      ...[
        "CapBnd:",
        "00000000a80425fb",
        "CapAmb:",
        "0000000000000000",
        "NoNewPrivs:",
        "0",
      ],
      ...["0022", "100", "5"],
    ]);
  });

  test("is alone: no PID, mount or folder of the agent is in its sight", async () => {
    const { stdout } = await box.shell(
      "ps | grep -v -e ps -e 'sh -c' ; ls /proc | grep '^[0-9]' | sort -n | head -1; grep -c /run/ /proc/mounts; ls -a /",
    );
    assert.match(stdout, /sleep 1000000/);
    assert.doesNotMatch(stdout, /init$/m);
    const root = await box.shell("ls / | tr '\\n' ' '");
    assert.equal(
      root.stdout,
      "bin dev etc fifo home lib lib64 link private proc root run scratch secret sys tmp ".replace(
        "root ",
        "",
      ),
    );
  });

  test("has a name as its host", async () => {
    assert.equal(
      (await box.shell("hostname; cat /proc/sys/kernel/domainname")).stdout,
      "box.example\nexample.org\n",
    );
  });

  test("is a session of its own with the requested privileges only", async () => {
    const result = await box.shell(
      "mount -t tmpfs none /tmp; cat /proc/self/status | grep NoNew",
      { noNewPrivileges: true, capabilities: [] },
    );
    assert.match(result.stderr, /permission denied/);
    assert.match(result.stdout, /NoNewPrivs:\t1/);
  });
});

describe("the user", () => {
  const cases: [string, string[], string][] = [
    ["", [], "uid=0(root) gid=0(root) groups=0(root)"],
    ["app", [], "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)"],
    [
      "1000",
      ["wheel", "77"],
      "uid=1000(app) gid=1000(app) groups=10(wheel),77,1000(app),2000(extra)",
    ],
    ["app:wheel", [], "uid=1000(app) gid=10(wheel) groups=10(wheel)"],
    ["1234", [], "uid=1234 gid=0(root) groups=0(root)"],
    ["5:6", [], "uid=5 gid=6 groups=6"],
  ];
  for (const [user, groups, expected] of cases)
    test(`${JSON.stringify(user)} is ${expected}`, async () => {
      assert.equal(
        (await box.run(["id"], { user, groups })).stdout.trim(),
        expected,
      );
    });

  test("that does not exist is refused in Docker's words", async () => {
    assert.deepEqual(await refusal(["id"], { user: "foo" }), {
      code: "no-such-user",
      message: "unable to find user foo: no matching entries in passwd file",
    });
    assert.deepEqual(await refusal(["id"], { user: "app:nix" }), {
      code: "no-such-user",
      message: "unable to find group nix: no matching entries in group file",
    });
  });

  test("may open /dev/stdout and /dev/stderr again", async () => {
    const result = await box.shell(
      "echo out > /dev/stdout; echo err > /dev/stderr; echo $HOME",
      { user: "app" },
    );
    assert.deepEqual(
      [result.stdout, result.stderr],
      ["out\n/home/app\n", "err\n"],
    );
  });
});

describe("what cannot be executed", () => {
  const cases: [string[], string, string][] = [
    [
      ["nope"],
      "executable-not-found",
      'exec: "nope": executable file not found in $PATH',
    ],
    [
      [""],
      "executable-not-found",
      'exec: "": executable file not found in $PATH',
    ],
    [
      ["/nope"],
      "executable-not-found",
      'exec: "/nope": stat /nope: no such file or directory',
    ],
    [
      ["/private"],
      "executable-not-runnable",
      'exec: "/private": is a directory',
    ],
    [
      ["/private/readme"],
      "executable-not-runnable",
      'exec: "/private/readme": permission denied',
    ],
    [
      ["/private/garbage"],
      "executable-not-runnable",
      "exec /private/garbage: exec format error",
    ],
    [
      ["/private/orphan"],
      "executable-not-found",
      "exec /private/orphan: no such file or directory",
    ],
  ];
  for (const [args, code, message] of cases)
    test(`${JSON.stringify(args[0])}: ${message}`, async () => {
      const error = await refusal(args);
      assert.deepEqual([error.code, error.message], [code, message]);
    });

  test("leaves nothing behind", async () => {
    const { processes } = await box.machine.request("hello", {});
    assert.ok(processes.every(({ pid }) => pid > 0));
  });
});

describe("stdin", () => {
  test("arrives whole, whatever its size, and ends", async () => {
    const input = randomBytes(3_000_000);
    const { stdout } = await box.run(["sha256sum"], { input });
    assert.equal(
      stdout.split(" ")[0],
      createHash("sha256").update(input).digest("hex"),
    );
  });

  test("is empty when there is none", async () => {
    assert.equal((await box.run(["wc", "-c"])).stdout.trim(), "0");
  });

  test("that nobody reads is acknowledged all the same", async () => {
    const number = box.number();
    const input = Buffer.alloc(2 * WINDOW, "x");
    const { stdout, stderr } = await box.spawn(
      number,
      ["sh", "-c", "exec <&-; sleep 0.3; echo done"],
      { input },
    );
    assert.equal((await box.finish(number, stdout, stderr)).stdout, "done\n");
    await box.machine.until(
      () =>
        box.machine.stdinAcks.get(streamOf(number, Channel.Stdin)) ===
          input.length || undefined,
    );
  });
});

describe("output", () => {
  test("stops the process when it is not acknowledged, and goes on when it is", async () => {
    const number = box.number();
    const stream = streamOf(number, Channel.Stdout);
    box.machine.held.add(stream);
    const { stdout, stderr } = await box.spawn(number, [
      "sh",
      "-c",
      "seq 1 200000",
    ]);
    await box.machine.until(() => stdout.offset === WINDOW || undefined);
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(stdout.offset, WINDOW);
    // The others are not held up.
    assert.equal((await box.run(["echo", "hi"])).stdout, "hi\n");
    box.machine.held.delete(stream);
    box.machine.frame(FrameType.Ack, stream, stdout.offset);
    const result = await box.finish(number, stdout, stderr);
    assert.equal(
      result.stdout,
      Array.from({ length: 200000 }, (_, i) => `${i + 1}\n`).join(""),
    );
  });

  test("held by a descendant ends two seconds after an exec", async () => {
    const number = box.number();
    const { stdout, stderr } = await box.spawn(number, [
      "sh",
      "-c",
      "sleep 30 & echo started",
    ]);
    const exit = await box.machine.exit(number);
    assert.equal(exit.code, 0);
    assert.equal(stdout.ended, false);
    assert.equal(
      (await box.finish(number, stdout, stderr)).stdout,
      "started\n",
    );
  });

  test("is complete before the exit is told", async () => {
    for (let i = 0; i < 5; i++) {
      const number = box.number();
      const { stdout, stderr } = await box.spawn(number, ["seq", "1", "5000"]);
      await box.machine.exit(number);
      assert.ok(stdout.ended && stderr.ended);
    }
  });
});

describe("a terminal", () => {
  test("has a size, line discipline and a controlling process group", async () => {
    const number = box.number();
    const stream = streamOf(number, Channel.Stdin);
    const { stdout, stderr } = await box.spawn(
      number,
      [
        "sh",
        "-c",
        "stty size; tty; trap 'echo int' INT; read x; echo got $x; read y; stty size",
      ],
      {
        tty: { rows: 33, columns: 101 },
        stdin: true,
      },
    );
    const text = () => Buffer.concat(stdout.chunks).toString();
    await box.machine.until(() => /pts\/\d\r\n/.test(text()) || undefined);
    box.machine.frame(FrameType.Data, stream, 0, Buffer.from("hallo\n"));
    await box.machine.until(() => text().includes("got hallo") || undefined);
    await box.machine.request("resize", {
      process: number,
      rows: 50,
      columns: 60,
    });
    box.machine.frame(FrameType.Data, stream, 6, Buffer.from("\x03"));
    await box.machine.until(() => text().includes("int") || undefined);
    box.machine.frame(FrameType.Data, stream, 7, Buffer.from("\n"));
    const result = await box.finish(number, stdout, stderr, true);
    assert.match(
      result.stdout,
      /^33 101\r\n\/dev\/pts\/\d\r\nhallo\r\ngot hallo\r\n\^Cint\r\n/,
    );
  });

  test("is hung up when its process ends", async () => {
    const result = await box.run(["sh", "-c", "sleep 100 & echo done"], {
      tty: { rows: 1, columns: 1 },
    });
    assert.equal(result.stdout, "done\r\n");
  });

  test("of a process without one cannot be resized", async () => {
    await assert.rejects(
      box.machine.request("resize", { process: 1, rows: 1, columns: 1 }),
      /invalid: process 1 has no terminal/,
    );
  });
});

describe("signals", () => {
  test("end a process with 128 + number", async () => {
    const number = box.number();
    const { stdout, stderr } = await box.spawn(number, ["sleep", "100"]);
    await box.machine.request("signal", { process: number, signal: 15 });
    const { exit } = await box.finish(number, stdout, stderr);
    assert.deepEqual([exit.code, exit.signal], [143, 15]);
    await assert.rejects(
      box.machine.request("signal", { process: number, signal: 15 }),
      /not-found/,
    );
  });
});

describe("the container's files", () => {
  test("of the engine are there, through links that stay inside", async () => {
    const result = await box.shell(
      "cat /etc/hosts /etc/resolv.conf /run/resolve/stub.conf /secret/planted /etc/machine-id; echo x >> /etc/hosts; echo $?",
    );
    assert.equal(
      result.stdout,
      "127.0.0.1\tlocalhost\nnameserver 172.17.0.1\nnameserver 172.17.0.1\ninside\n0123456789abcdef0123456789abcdef\n0\n",
    );
  });

  test("are masked and read-only where asked", async () => {
    const result = await box.shell(
      "wc -c < /proc/devices; ls /sys/firmware | wc -l; echo 1 > /proc/sys/vm/swappiness; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmax; touch /sys/x",
    );
    assert.equal(result.stdout.replace(/\s+/g, " "), "0 0 999 123456 ");
    assert.match(result.stderr, /swappiness: Read-only file system/);
    assert.match(result.stderr, /Read-only file system\n$/);
  });

  test("on a tmpfs have its options", async () => {
    const { stdout } = await box.shell(
      "stat -c '%a %u' /scratch/deep; grep /scratch /proc/mounts; df -k /scratch/deep | tail -1",
    );
    assert.match(stdout, /^770 1000\n/);
    assert.match(stdout, /noexec/);
    assert.match(stdout, / 1024 /);
  });

  test("in /dev are Docker's", async () => {
    const { stdout } = await box.shell(
      "ls /dev | tr '\\n' ' '; cat /dev/zero | head -c 2 | wc -c; echo x > /dev/full",
    );
    assert.equal(
      stdout,
      "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 2\n",
    );
  });
});

test("the network is set up", async () => {
  const { stdout } = await box.shell(
    "ip addr show eth0; ip route; ip -6 route | grep default; ip addr show lo",
  );
  assert.match(stdout, /mtu 1450/);
  assert.match(stdout, /02:42:ac:11:00:02/);
  assert.match(stdout, /inet 172\.17\.0\.2\/16 brd 172\.17\.255\.255/);
  assert.match(stdout, /inet6 fd00:17::2\/64/);
  assert.match(stdout, /inet6 fe80::42:acff:fe11:2\/64/);
  assert.match(stdout, /default via 172\.17\.0\.1 dev eth0/);
  assert.match(stdout, /default via fd00:17::1 dev eth0/);
  assert.match(stdout, /inet 127\.0\.0\.1\/8/);
});

test("the processes are listed as the container sees them", async () => {
  const number = box.number();
  await box.spawn(number, ["sh", "-c", "sleep 77; true"], { user: "app" });
  // The shell is executed when `spawn` is answered; its child comes when it comes.
  let processes: ProcessInfo[] = [];
  let child: ProcessInfo | undefined;
  for (let tries = 0; !child && tries < 100; tries++) {
    ({ processes } = await box.machine.request("processes", {}));
    child = processes.find(({ command }) => command === "sleep 77");
  }
  const init = processes.find(({ pid }) => pid === 1);
  assert.equal(init?.command, "sleep 1000000");
  assert.equal(init?.user, "root");
  const parent = processes.find(({ pid }) => pid === child?.ppid);
  assert.deepEqual(
    [parent?.command, parent?.user, parent?.tty],
    ["sh -c sleep 77; true", "app", "?"],
  );
  assert.ok(Math.abs((parent?.startedAt ?? 0) - Date.now()) < 20_000);
  assert.ok((parent?.rss ?? 0) > 1000);
  await box.machine.request("signal", { process: number, signal: 9 });
});

test("the kernel's killing for want of memory is told", async () => {
  const { exit } = await box.shell("tail -c 200m /dev/zero");
  assert.equal(exit.code, 137);
  assert.equal(exit.oomKilled, true);
  assert.ok(box.machine.events.some(({ event }) => event === "oom"));
});

describe("a request that makes no sense", () => {
  const cases: [string, RegExp][] = [
    ['{"id":9001,"op":"nope","args":{}}', /unknown operation "nope"/],
    ['{"id":9002,"op":"constructor","args":{}}', /unknown operation/],
    ['{"id":9003,"op":"spawn","args":{}}', /process: number is expected/],
    ['{"id":9004,"op":"spawn"}', /args: an object is expected/],
    [
      '{"id":9005,"op":"signal","args":{"process":1,"signal":999}}',
      /no signal/,
    ],
    [
      '{"id":9006,"op":"signal","args":{"process":4711,"signal":9}}',
      /no process 4711/,
    ],
    ['{"id":9007,"op":"release","args":{"process":1}}', /has not ended/],
    ['{"id":9008,"op":"setup","args":{}}', /time: number is expected/],
  ];
  for (const [text, expected] of cases)
    test(`${text} is refused`, async () => {
      const { id } = JSON.parse(text) as { id: number };
      const answer = box.machine.answer(id);
      box.machine.message(text);
      const response = await answer;
      assert.ok(!response.ok);
      assert.match(response.error.message, expected);
    });

  test("a second setup, or a process number in use, is refused", async () => {
    await assert.rejects(box.setup(), /set up before/);
    await assert.rejects(box.spawn(1, ["true"]), /process 1 is there already/);
  });

  test("that is no JSON is logged", async () => {
    box.machine.message("{{{");
    await box.machine.until(
      () =>
        box.machine.events.some(
          (event) =>
            event.event === "log" &&
            event.message.includes("could not be read"),
        ) || undefined,
    );
  });

  test("that is large is understood", async () => {
    const env = [
      "PATH=/bin",
      ...Array.from({ length: 100 }, (_, i) => `V${i}=${"x".repeat(1000)}`),
    ];
    assert.equal(
      (await box.shell("env | wc -c", { env })).stdout.trim().length > 5,
      true,
    );
  });
});

test("an ended process is kept until it is released", async () => {
  const number = box.number();
  const { stdout, stderr } = await box.spawn(number, [
    "sh",
    "-c",
    "echo abc; exit 3",
  ]);
  await box.finish(number, stdout, stderr);
  const find = async () =>
    (await box.machine.request("hello", {})).processes.find(
      (state) => state.process === number,
    );
  const state = await find();
  assert.equal(state?.exit?.code, 3);
  assert.deepEqual(state?.stdout, { produced: 4, ended: true });
  await box.machine.request("release", { process: number });
  assert.equal(await find(), undefined);
});

test("the end of the container's process ends all others", async () => {
  const number = box.number();
  const { stdout, stderr } = await box.spawn(number, ["sleep", "1000"]);
  await box.machine.request("signal", { process: 1, signal: 9 });
  assert.equal((await box.machine.exit(1)).code, 137);
  assert.equal((await box.finish(number, stdout, stderr)).exit.signal, 9);
  await assert.rejects(box.run(["true"]), /the container is not running/);
  assert.deepEqual(await box.machine.request("shutdown", {}), {});
});
