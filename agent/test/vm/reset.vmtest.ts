import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, test } from "node:test";
import type { Setup } from "../../../protocol/index.js";
import { TestContainer, defaultSetup } from "./container.js";
import { Refused } from "./machine.js";

/**
 * What is looked at: a name, and a command of the container. Not looked at is what counts the machine's own
 * doings and differs from one machine to the next in any case: CPU time, memory in use, /proc/diskstats,
 * /proc/stat, /proc/vmstat, numbers of namespaces, inodes and mounts; and the kernel's log, where a
 * privileged container finds the rehearsal's mounts.
 */
const VIEWS: Record<string, string> = {
  processes: "ps -o pid,ppid,user,comm",
  hostname: "hostname; domainname; cat /proc/sys/kernel/*name",
  addresses: "ip addr; ip route; ip -6 route; ip neigh; ip rule",
  links: "cat /proc/net/dev /proc/net/dev_mcast /proc/net/if_inet6",
  "NICs in /sys":
    "cd /sys/class/net; for i in *; do grep -s . $i/ifindex $i/address $i/mtu $i/flags $i/operstate $i/addr_assign_type $i/statistics/*; done",
  sockets:
    "cd /proc/net; for i in snmp netstat snmp6 sockstat sockstat6 arp route igmp tcp udp raw unix packet fib_trie; do echo $i; cat $i; done",
  "network settings": "cd /proc/sys/net; grep -rs . ipv4 ipv6 core unix",
  mounts: "cat /proc/self/mounts; df -k | awk '{print $1, $2, $6}'",
  mountinfo: "cut -d' ' -f 4- /proc/self/mountinfo",
  files:
    "find / -xdev | sort; ls -lnA / /etc /run /tmp /home | awk '{print $1, $3, $4, $5, $NF}'",
  devices:
    "find /dev -exec ls -dln {} ';' | awk '{print $1, $3, $4, $5, $6, $NF}'",
  "shared memory": "ls -A /dev/shm /dev/mqueue; cat /proc/sysvipc/*",
  cgroup:
    "cd /sys/fs/cgroup; grep -s . *.max *.min *.low *.high *.weight cgroup.* *.events pids.current pids.peak cpuset.*",
  "memory counted":
    "cd /sys/fs/cgroup; grep -E '^(oom|pgmajfault|workingset|pgscan|pgsteal|swap|zswap)' memory.stat",
  "CPU counted": "cd /sys/fs/cgroup; grep -E 'throttled|periods' cpu.stat",
  kernel:
    "cat /proc/filesystems /proc/partitions /proc/devices /proc/swaps /proc/locks /proc/modules /proc/cmdline /proc/consoles",
  limits: "cat /proc/self/limits; cat /proc/self/oom_score_adj; umask",
  status:
    "grep -E '^(Cap|NoNew|Seccomp|Uid|Gid|Groups|Sig|Shd)' /proc/self/status",
  "file systems in /sys": "ls /sys/fs /sys/fs/ext4 /sys/fs/erofs",
  "kernel settings": "cd /proc/sys; grep -rs . vm user fs/mqueue fs/inotify",
};

const OTHER: Partial<Setup> = {
  hostname: "rehearsal",
  domainname: "rehearsal.example",
  network: {
    interfaces: [
      {
        index: 0,
        name: "eth0",
        mac: "02:42:0a:00:00:63",
        mtu: 9000,
        addresses: ["10.9.8.7/24", "fd00:99::7/64"],
        gateways: ["10.9.8.1", "fd00:99::1"],
      },
      {
        index: 1,
        name: "eth1",
        mac: "02:42:0a:00:00:64",
        mtu: 1400,
        addresses: ["10.9.9.7/24"],
        gateways: [],
      },
    ],
  },
  mounts: [{ type: "tmpfs", target: "/rehearsal", options: [] }],
  files: [
    { path: "/etc/hosts", content: "10.9.8.7 rehearsal\n", mode: 0o644 },
    { path: "/etc/rehearsal", content: "rehearsal\n", mode: 0o600 },
  ],
  limits: { memoryBytes: 32 << 20, pids: 5, cpuQuotaUs: 50_000, cpuWeight: 7 },
  shmSize: 1 << 20,
};

let fresh: TestContainer;
let rehearsed: TestContainer;

before(async () => {
  const options = { nics: 3, rehearsal: true };
  [fresh, rehearsed] = await Promise.all([
    TestContainer.boot(options),
    TestContainer.boot(options),
  ]);
});

after(async () => {
  await Promise.all([fresh.stop(), rehearsed.stop()]);
});

async function rehearse(script = "echo done"): Promise<void> {
  await rehearsed.setup(OTHER);
  const { stdout, stderr } = await rehearsed.spawn(1, [
    "/bin/busybox",
    "sh",
    "-c",
    script,
  ]);
  const { exit } = await rehearsed.finish(1, stdout, stderr);
  assert.equal(exit.code, 0);
  await rehearsed.machine.request("release", { process: 1 });
}

function invalid(error: unknown): boolean {
  return error instanceof Refused && error.error.code === "invalid";
}

test("a machine that nothing was done to is not reset", async () => {
  await assert.rejects(rehearsed.machine.request("reset", {}), invalid);
});

test("a machine with a process that was not released is not reset", async () => {
  await rehearsed.setup(OTHER);
  const { stdout, stderr } = await rehearsed.spawn(1, [
    "/bin/busybox",
    "sleep",
    "1000",
  ]);
  await assert.rejects(rehearsed.machine.request("reset", {}), invalid);
  await rehearsed.machine.request("signal", { process: 1, signal: 9 });
  await rehearsed.finish(1, stdout, stderr);
  await assert.rejects(rehearsed.machine.request("reset", {}), invalid);
  await rehearsed.machine.request("release", { process: 1 });
  await rehearsed.machine.request("reset", {});
  await assert.rejects(rehearsed.machine.request("reset", {}), invalid);
});

test("a machine may be rehearsed again, with files and memory in use", async () => {
  await rehearse(
    "echo written > /rehearsed; echo x > /dev/shm/x; cat /bin/busybox > /copy; echo done",
  );
  await rehearsed.machine.request("reset", {});
  await rehearsed.giveRehearsalDisks();
  await rehearse();
  await rehearsed.machine.request("reset", {});
  const hello = await rehearsed.machine.request("hello", {});
  assert.equal(hello.ready, false);
  assert.equal(hello.bootId, "");
  assert.deepEqual(hello.processes, []);
});

test("a container cannot tell a rehearsed machine from a fresh one", async () => {
  const setup: Setup = {
    ...defaultSetup(),
    domainname: "example.org",
    privileged: true,
    maskedPaths: [],
    readonlyPaths: [],
    limits: { memoryBytes: 64 << 20, pids: 100 },
    // IPv6 sends on its own, and counts that: at another time in each machine.
    network: {
      interfaces: defaultSetup().network.interfaces.map((nic) => ({
        ...nic,
        addresses: ["172.17.0.2/16"],
        gateways: ["172.17.0.1"],
      })),
    },
    files: [
      { path: "/etc/hosts", content: "127.0.0.1 localhost\n", mode: 0o644 },
    ],
  };
  for (const box of [fresh, rehearsed]) {
    await box.giveDisks();
    await box.setup(setup);
    await box.startInit();
  }
  for (const [name, command] of Object.entries(VIEWS)) {
    let [expected, seen] = await viewBoth(command);
    assert.ok(expected && expected.length > 1, `${name}: nothing to be seen`);
    // The kernel reports a link a while after it is there.
    for (
      let tries = 0;
      tries < 50 && String(seen) !== String(expected);
      tries++
    ) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      [expected, seen] = await viewBoth(command);
    }
    assert.deepEqual(seen, expected, name);
  }
});

function viewBoth(command: string): Promise<string[][]> {
  return Promise.all([fresh, rehearsed].map((box) => view(box, command)));
}

async function view(box: TestContainer, command: string): Promise<string[]> {
  const { stdout } = await box.shell(`{ ${command}; } 2>&1`, {
    capabilities: ["SYS_ADMIN", "DAC_OVERRIDE", "SYSLOG", "NET_ADMIN"],
  });
  // The kernel lists what it finds in hash tables in any order.
  return stdout.split("\n").sort();
}

test("every machine makes up a boot ID of its own", async () => {
  const [one, other] = await Promise.all(
    [fresh, rehearsed].map((box) => box.machine.request("hello", {})),
  );
  assert.match(one?.bootId ?? "", /^[0-9a-f-]{36}$/);
  assert.notEqual(one?.bootId, other?.bootId);
});

test("the container's disk is clean at the end", async () => {
  await rehearsed.shell("echo kept > /kept");
  await rehearsed.machine.request("shutdown", {});
  await rehearsed.machine.stop();
  execFileSync("e2fsck", ["-fn", rehearsed.disk], { stdio: "pipe" });
});
