import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { TestContainer } from "./container.js";
import { Refused } from "./machine.js";

const FURNISH = {
  paths: ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"],
  program: { name: "sh", path: "/nowhere:/bin" },
};
const SETUP = {
  files: [
    { path: "/etc/hosts", content: "127.0.0.1 localhost\n", mode: 0o644 },
    { path: "/etc/hostname", content: "test\n", mode: 0o600 },
    { path: "/etc/resolv.conf", content: "nameserver 1.2.3.4\n", mode: 0o644 },
  ],
};
const VIEWS: Record<string, string> = {
  mounts: "cut -d' ' -f 4- /proc/self/mountinfo",
  files:
    "find / -xdev | sort; ls -lnA / /etc | awk '{print $1, $3, $4, $5, $NF}'",
  content: "cat /etc/hosts /etc/hostname /etc/resolv.conf",
  devices: "find /dev -exec ls -dln {} ';' | awk '{print $1, $3, $4, $NF}'",
  processes: "ps -o pid,ppid,comm",
  disk: "df -k / | awk '{print $2, $3}'",
  NICs: "ls /sys/class/net",
  network:
    "ip address | sed s/valid.*//; ip route; ip -6 route; cat /proc/net/arp /proc/net/fib_trie",
  names: "hostname; domainname",
  "first process":
    "cd /proc/1; cat cmdline oom_score_adj limits cgroup; ls fd; readlink fd/0 cwd root; tr '\\0' '\\n' < environ; grep -E '^(Cap|NoNew|Seccomp|Uid|Gid|Groups|Sig|Shd|NSpid)' status",
};

let plain: TestContainer;
let furnished: TestContainer;

before(async () => {
  [plain, furnished] = await Promise.all([
    TestContainer.boot(),
    TestContainer.boot(),
  ]);
  await furnished.machine.request("furnish", FURNISH);
  await furnished.machine.request("rouse", {});
});

after(async () => {
  await Promise.all([plain.stop(), furnished.stop()]);
});

function invalid(error: unknown): boolean {
  return error instanceof Refused && error.error.code === "invalid";
}

test("a machine is furnished once, and for an ordinary container only", async () => {
  await assert.rejects(furnished.machine.request("furnish", FURNISH), invalid);
  const other = await TestContainer.boot();
  try {
    await other.machine.request("furnish", FURNISH);
    await assert.rejects(other.setup({ ...SETUP, privileged: true }), invalid);
  } finally {
    await other.stop();
  }
});

test("a container cannot tell a furnished machine from another", async () => {
  for (const box of [plain, furnished]) {
    await box.setup(SETUP);
    await box.startInit();
  }
  for (const [name, command] of Object.entries(VIEWS)) {
    const [expected, seen] = await Promise.all(
      [plain, furnished].map(async (box) => {
        const { stdout } = await box.shell(command);
        return stdout.split("\n").sort();
      }),
    );
    assert.ok(expected && expected.length > 1, `${name}: nothing to be seen`);
    assert.deepEqual(seen, expected, name);
  }
});

test("a container without a network sees no NIC", async () => {
  const box = await TestContainer.boot();
  try {
    await box.machine.request("furnish", FURNISH);
    await box.setup({ ...SETUP, network: { interfaces: [] } });
    await box.startInit();
    const { stdout } = await box.shell("ls /sys/class/net");
    assert.equal(stdout.trim(), "lo");
  } finally {
    await box.stop();
  }
});

test("a process ahead that does not serve is replaced, and one that serves has its streams", async () => {
  const cases = [
    { setup: { sysctls: { "net.core.somaxconn": "77" } }, input: "in" },
    { setup: { maskedPaths: ["/proc/version"] }, input: "in" },
    { setup: {}, input: "in" },
  ];
  for (const { setup, input } of cases) {
    const box = await TestContainer.boot();
    try {
      await box.machine.request("furnish", FURNISH);
      await box.setup({ ...SETUP, ...setup });
      const script =
        "cat; echo; cat /proc/sys/net/core/somaxconn /proc/version; ps | wc -l";
      const { stdout, stderr } = await box.spawn(1, ["sh", "-c", script], {
        input,
      });
      const { exit, stdout: text } = await box.finish(1, stdout, stderr);
      const [first, somaxconn, version, ...rest] = text.split("\n");
      assert.equal(first, "in");
      assert.equal(somaxconn, setup.sysctls ? "77" : "4096");
      assert.equal(version?.startsWith("Linux"), !setup.maskedPaths);
      assert.ok(rest.length > 0);
      assert.equal(exit.code, 0);
    } finally {
      await box.stop();
    }
  }
});

test("a process ahead becomes another than the default one", async () => {
  const box = await TestContainer.boot();
  try {
    await box.machine.request("furnish", FURNISH);
    await box.setup(SETUP);
    const script =
      "id -u; id -g; id -G; pwd; echo $HOME; umask; cat /proc/self/oom_score_adj; stat -c %u /dev/fd/1; echo out > /dev/stdout";
    const { stdout, stderr } = await box.spawn(1, ["sh", "-c", script], {
      user: "app",
      groups: ["wheel"],
      cwd: "/made/for/it",
      env: ["PATH=/bin", "HOME="],
      oomScoreAdj: 7,
    });
    const result = await box.finish(1, stdout, stderr);
    assert.equal(
      result.stdout,
      "1000\n1000\n1000 10 2000\n/made/for/it\n/home/app\n0022\n7\n1000\nout\n",
      result.stderr,
    );
  } finally {
    await box.stop();
  }
});

test("the program that was told of ahead runs, or cannot for the same reasons", async () => {
  const cases: [name: string, user: string, code: string][] = [
    ["sh", "", ""],
    ["sh", "app", ""],
    ["nope", "", "executable-not-found"],
    ["/private/readme", "", "executable-not-runnable"],
    ["/private/orphan", "", "executable-not-found"],
    ["/private/owners", "app", "executable-not-runnable"],
  ];
  for (const [name, user, code] of cases) {
    const box = await TestContainer.boot();
    try {
      const { path } = FURNISH.program;
      const program = { name, path };
      await box.machine.request("furnish", { ...FURNISH, program });
      await box.setup(SETUP);
      const args = [name, "-c", "echo ran"];
      const options = {
        env: [`PATH=${path}`],
        ...(user && { user, capabilities: [] }),
      };
      if (code === "") {
        const { stdout, stderr } = await box.spawn(1, args, options);
        const { stdout: text } = await box.finish(1, stdout, stderr);
        assert.equal(text, "ran\n", name);
        continue;
      }
      await assert.rejects(
        box.spawn(1, args, options),
        (error) => error instanceof Refused && error.error.code === code,
        name,
      );
    } finally {
      await box.stop();
    }
  }
});

test("an image without a machine ID gets the container's, and has none in a build", async () => {
  const machineId = "0123456789abcdef0123456789abcdef";
  const cases = [
    { setup: { machineId }, text: `${machineId}\n` },
    { setup: {}, text: "" },
  ];
  for (const { setup, text } of cases) {
    const box = await TestContainer.boot();
    try {
      await box.machine.request("furnish", FURNISH);
      await box.setup({ ...SETUP, ...setup });
      await box.startInit();
      const { stdout } = await box.shell("cat /etc/machine-id");
      assert.equal(stdout, text);
    } finally {
      await box.stop();
    }
  }
});

test("a container has its own capabilities, fewer or more than the process ahead", async () => {
  const cases = [
    { capabilities: ["CHOWN", "KILL"], bounds: 0x21n },
    { capabilities: ["CHOWN", "SYS_ADMIN"], bounds: 0x200001n },
  ];
  for (const { capabilities, bounds } of cases) {
    const box = await TestContainer.boot();
    try {
      await box.machine.request("furnish", FURNISH);
      await box.setup(SETUP);
      const script = "grep -E '^Cap(Bnd|Eff|Prm)' /proc/self/status";
      const { stdout, stderr } = await box.spawn(1, ["sh", "-c", script], {
        capabilities,
      });
      const { stdout: text } = await box.finish(1, stdout, stderr);
      const sets = text.match(/[0-9a-f]{16}/g) ?? [];
      assert.deepEqual(
        sets.map((set) => BigInt(`0x${set}`)),
        [bounds, bounds, bounds],
      );
    } finally {
      await box.stop();
    }
  }
});

test("a process ahead that was ended is not counted among the container's", async () => {
  const box = await TestContainer.boot();
  try {
    await box.machine.request("furnish", FURNISH);
    await box.setup({ ...SETUP, limits: { pids: 1 } });
    const { stdout, stderr } = await box.spawn(1, ["sh", "-c", "echo alone"], {
      tty: { rows: 24, columns: 80 },
    });
    const { stdout: text } = await box.finish(1, stdout, stderr, true);
    assert.equal(text.trim(), "alone");
  } finally {
    await box.stop();
  }
});
