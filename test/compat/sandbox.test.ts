import assert from "node:assert/strict";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { before, describe, test } from "node:test";
import { docker, dockerOk, inspect, ownContainers } from "./harness/docker.js";
import { busybox, environment, imageRef } from "./harness/environment.js";

const { named } = ownContainers();

/** Docker's default capabilities. */
const DEFAULT_CAPABILITIES = "00000000a80425fb";

describe("what a container sees of itself", () => {
  const name = named("sandbox");
  const sh = (script: string) => dockerOk(["exec", name, "sh", "-c", script]);

  before(() =>
    dockerOk(["run", "-d", "--name", name, busybox(), "sleep", "10000"]),
  );

  test("its command is process 1 and there is nothing else", async () => {
    assert.equal(
      await dockerOk(["run", "--rm", busybox(), "ps", "-o", "pid,args"]),
      "PID   COMMAND\n    1 ps -o pid,args",
    );
  });

  test("Docker's default capabilities, and none for another user", async () => {
    const status = await sh("grep Cap /proc/1/status");
    for (const set of ["CapPrm", "CapEff", "CapBnd"]) {
      assert.match(
        status,
        new RegExp(`^${set}:\t${DEFAULT_CAPABILITIES}$`, "m"),
      );
    }
    assert.match(status, /^CapInh:\t0{16}$/m);
    assert.match(status, /^CapAmb:\t0{16}$/m);
    assert.match(
      await sh("grep CapEff /proc/self/status"),
      new RegExp(`${DEFAULT_CAPABILITIES}$`),
    );
    const user = await dockerOk([
      "exec",
      "-u",
      "1000",
      name,
      "grep",
      "Cap",
      "/proc/self/status",
    ]);
    assert.match(user, /^CapEff:\t0{16}$/m);
    assert.match(user, new RegExp(`^CapBnd:\t${DEFAULT_CAPABILITIES}$`, "m"));
  });

  test("capabilities can be added and dropped", async () => {
    assert.match(
      await dockerOk([
        "run",
        "--rm",
        "--cap-drop",
        "ALL",
        busybox(),
        "grep",
        "CapEff",
        "/proc/self/status",
      ]),
      /\t0{16}$/,
    );
    assert.match(
      await dockerOk([
        "run",
        "--rm",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "NET_ADMIN",
        busybox(),
        "grep",
        "CapEff",
        "/proc/self/status",
      ]),
      /\t0000000000001000$/,
    );
    const unknown = await docker(["create", "--cap-add", "NO_SUCH", busybox()]);
    assert.equal(unknown.code, 1);
    assert.match(
      unknown.stderr,
      /invalid CapAdd: unknown capability: "CAP_NO_SUCH"/,
    );
  });

  test("what is masked and what is read-only", async () => {
    assert.equal(
      await sh(
        "cat /proc/keys /proc/timer_list /proc/kcore 2>/dev/null | wc -c",
      ),
      "0",
    );
    assert.equal(
      await sh(
        "ls /sys/firmware /proc/acpi /proc/scsi 2>/dev/null | grep -v : | grep . || echo empty",
      ),
      "empty",
    );
    for (const file of [
      "/proc/sys/kernel/hostname",
      "/proc/sysrq-trigger",
      "/sys/kernel/mm/transparent_hugepage/enabled",
    ]) {
      const { code, stderr } = await docker([
        "exec",
        name,
        "sh",
        "-c",
        `echo x > ${file}`,
      ]);
      assert.notEqual(code, 0, file);
      assert.match(
        stderr,
        /Read-only file system|nonexistent directory|can't create/i,
        file,
      );
    }
    assert.match(
      await sh("grep ' /sys ' /proc/mounts"),
      /^sysfs \/sys sysfs ro,/,
    );
    assert.match(
      await sh("grep ' /sys/fs/cgroup ' /proc/mounts"),
      /^cgroup2? \/sys\/fs\/cgroup cgroup2 ro,/,
    );
  });

  test("privileged actions are refused", async () => {
    for (const command of [
      "mount -t tmpfs x /tmp",
      "hostname changed",
      "dmesg",
      "reboot -f",
    ]) {
      const { code } = await docker(["exec", name, "sh", "-c", command]);
      assert.notEqual(code, 0, command);
    }
    assert.equal((await inspect(name)).State.Running, true);
  });

  test("a device that is not the container's cannot be opened, even by its number", async () => {
    const { stdout, stderr } = await docker([
      "exec",
      name,
      "sh",
      "-c",
      "for major in $(awk '$2 == \"virtblk\" { print $1 }' /proc/devices); do mknod /tmp/disk b $major 0 && head -c 1 /tmp/disk | wc -c; done; mknod /tmp/null c 1 3 && echo x > /tmp/null && echo null",
    ]);
    assert.match(stderr, /Operation not permitted/);
    assert.match(stdout, /^null$/m);
  });

  test("the agent and the machine's disks are out of sight", async () => {
    const mounts = await sh("cat /proc/mounts");
    assert.match(mounts, /^overlay \/ overlay rw,/m);
    assert.doesNotMatch(mounts, /^\S+ \S+ (erofs|ext4) /m);
    const { code } = await docker([
      "exec",
      name,
      "sh",
      "-c",
      "ls /dev/vda /dev/vport* /dev/hvc0 2>/dev/null",
    ]);
    assert.notEqual(code, 0);
  });

  test("/dev is Docker's", async () => {
    assert.equal(
      await sh("ls /dev | tr '\\n' ' '"),
      "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero",
    );
    assert.equal(
      await sh("df -k /dev/shm | tail -1 | awk '{print $2}'"),
      "65536",
    );
    assert.equal(
      await sh(
        "head -c 4 /dev/urandom | wc -c; echo x > /dev/null; head -c 3 /dev/zero | wc -c",
      ),
      "4\n3",
    );
    assert.equal(
      await sh("stat -c '%a %F' /dev/shm /dev/mqueue /dev/pts"),
      "1777 directory\n1777 directory\n755 directory",
    );
    assert.equal(
      await dockerOk([
        "run",
        "--rm",
        "--shm-size",
        "16m",
        busybox(),
        "sh",
        "-c",
        "df -k /dev/shm | tail -1 | awk '{print $2}'",
      ]),
      "16384",
    );
  });

  test("host name, hosts and resolv.conf", async () => {
    const { Id, NetworkSettings } = await inspect(name);
    const short = Id.slice(0, 12);
    const [network] = Object.values(NetworkSettings.Networks);
    assert.equal(await sh("hostname; cat /etc/hostname"), `${short}\n${short}`);
    const hosts = await sh("cat /etc/hosts");
    assert.match(hosts, /^127\.0\.0\.1\s+localhost$/m);
    assert.match(
      hosts,
      new RegExp(
        `^${network?.IPAddress.replaceAll(".", "\\.")}\\s+${short}$`,
        "m",
      ),
    );
    assert.match(await sh("cat /etc/resolv.conf"), /^nameserver \S+$/m);
    const added = await dockerOk([
      "run",
      "--rm",
      "--add-host",
      "there:192.0.2.7",
      "--dns",
      "192.0.2.53",
      "--dns-search",
      "example.org",
      busybox(),
      "sh",
      "-c",
      "grep there /etc/hosts; cat /etc/resolv.conf",
    ]);
    assert.match(added, /^192\.0\.2\.7\s+there$/m);
    assert.match(added, /^nameserver 192\.0\.2\.53$/m);
    assert.match(added, /^search example\.org$/m);
  });

  test("its interface has the address that inspect shows", async () => {
    const { NetworkSettings } = await inspect(name);
    const [network] = Object.values(NetworkSettings.Networks);
    assert.ok(network);
    const addresses = await sh("ip -4 -o addr show eth0");
    assert.ok(addresses.includes(`inet ${network.IPAddress}/`), addresses);
    assert.ok((await sh("ip link show eth0")).includes(network.MacAddress));
    assert.equal(
      await sh("ip route | awk '/^default/ {print $3, $5}'"),
      `${network.Gateway} eth0`,
    );
    assert.equal(await sh("ls /sys/class/net | tr '\\n' ' '"), "eth0 lo");
  });

  test("reaches the host's side of its network", async () => {
    const server = http.createServer((request, response) => {
      response.end(`from ${request.socket.remoteAddress}`);
    });
    await new Promise<void>((resolve) => server.listen(0, "0.0.0.0", resolve));
    try {
      const { port } = server.address() as AddressInfo;
      const [network] = Object.values(
        (await inspect(name)).NetworkSettings.Networks,
      );
      const answer = await sh(
        `wget -q -O - http://${network?.Gateway}:${port}/`,
      );
      assert.match(answer, /^from /);
      if (environment().root)
        assert.equal(answer, `from ${network?.IPAddress}`);
    } finally {
      server.close();
    }
  });

  test("the clock is the host's", async () => {
    const difference = Math.abs(
      Number(await sh("date +%s")) - Date.now() / 1000,
    );
    assert.ok(difference < 3, `${difference} s apart`);
  });

  test("two machines have different random numbers and machine identities", async () => {
    const read = () =>
      dockerOk([
        "run",
        "--rm",
        busybox(),
        "sh",
        "-c",
        "head -c 16 /dev/urandom | hexdump -e '16/1 \"%02x\"'; echo; cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid",
      ]);
    const [first, second] = await Promise.all([read(), read()]);
    const lines = [...(first ?? "").split("\n"), ...(second ?? "").split("\n")];
    assert.equal(lines.length, 6);
    assert.equal(new Set(lines).size, 6);
  });
});

describe("limits", () => {
  test("a container that takes more memory than it may is killed, and says so", async () => {
    const name = named("oom");
    const { code } = await docker([
      "run",
      "--name",
      name,
      "--memory",
      "48m",
      busybox(),
      "tail",
      "/dev/zero",
    ]);
    assert.equal(code, 137);
    const { State, HostConfig } = await inspect(name);
    assert.equal(State.OOMKilled, true);
    assert.equal(HostConfig.Memory, 48 * 1024 * 1024);
  });

  test("--memory and --cpus are what the container finds", async () => {
    const out = await dockerOk([
      "run",
      "--rm",
      "--memory",
      "100m",
      "--cpus",
      "2",
      "--pids-limit",
      "50",
      busybox(),
      "sh",
      "-c",
      "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; nproc",
    ]);
    assert.equal(out, `${100 * 1024 * 1024}\n50\n2`);
  });

  test("less than 6 MB is refused, as Docker does", async () => {
    const { code, stderr } = await docker([
      "run",
      "--rm",
      "--memory",
      "4m",
      busybox(),
      "true",
    ]);
    assert.equal(code, 125);
    assert.match(stderr, /Minimum memory limit allowed is 6MB/);
  });

  test("--ulimit, --sysctl, --tmpfs and --read-only", async () => {
    const out = await dockerOk([
      "run",
      "--rm",
      "--ulimit",
      "nofile=1000:2000",
      "--sysctl",
      "net.core.somaxconn=99",
      "--tmpfs",
      "/scratch:size=1m,mode=1770",
      "--read-only",
      busybox(),
      "sh",
      "-c",
      "ulimit -n; ulimit -Hn; cat /proc/sys/net/core/somaxconn; stat -c %a /scratch; df -k /scratch | tail -1 | awk '{print $2}'; echo x > /scratch/x && cat /scratch/x; echo x > /x || echo read-only; echo x > /etc/hosts || echo hosts too",
    ]);
    assert.equal(out, "1000\n2000\n99\n1770\n1024\nx\nread-only\nhosts too");
  });

  test("more memory than there is: a clear error, and nothing runs", async () => {
    const name = named("too-big");
    const { code, stderr } = await docker([
      "run",
      "--name",
      name,
      "--memory",
      "4000g",
      busybox(),
      "true",
    ]);
    assert.equal(code, 125);
    assert.match(stderr, /memory/i);
    const created = await docker(["inspect", "-f", "{{.State.Status}}", name]);
    if (created.code === 0) assert.equal(created.stdout.trim(), "created");
  });

  test("the writable disk has the size it was given and keeps nothing of another container", async () => {
    const out = await dockerOk([
      "run",
      "--rm",
      busybox(),
      "sh",
      "-c",
      "df -k / | tail -1 | awk '{print $2}'; ls /lost+found 2>/dev/null; ls / | tr '\\n' ' '",
    ]);
    const [size = "", listing = ""] = out.split("\n");
    assert.ok(Number(size) > 9_000_000, out);
    assert.equal(
      listing.trim(),
      "bin dev etc home lib proc root sbin sys tmp usr var",
    );
  });
});

test("--network none has no way out", async () => {
  assert.equal(
    await dockerOk([
      "run",
      "--rm",
      "--network",
      "none",
      busybox(),
      "sh",
      "-c",
      "ls /sys/class/net; ip route | wc -l",
    ]),
    "lo\n0",
  );
});

test("--privileged may what root may", async () => {
  const out = await dockerOk([
    "run",
    "--rm",
    "--privileged",
    busybox(),
    "sh",
    "-c",
    "grep CapEff /proc/self/status; mount -t tmpfs x /mnt 2>&1 || mkdir /mnt && mount -t tmpfs x /mnt && echo mounted; hostname changed && hostname",
  ]);
  assert.match(out, /^CapEff:\t000001ffffffffff$/m);
  assert.match(out, /^mounted$/m);
  assert.match(out, /^changed$/m);
});

test(
  "a file's capabilities and setuid bits are in force",
  { skip: !environment().debian },
  async () => {
    const out = await dockerOk(
      [
        "run",
        "--rm",
        "-u",
        "daemon",
        imageRef("debian"),
        "bash",
        "-c",
        "stat -c %a /usr/bin/passwd; passwd -S daemon; grep NoNewPrivs /proc/self/status",
      ],
      { timeout: 120_000 },
    );
    assert.match(out, /^4755\ndaemon /);
    assert.match(out, /^NoNewPrivs:\t0$/m);
  },
);
