import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { api } from "./harness/api.js";
import {
  docker,
  dockerOk,
  inspect,
  ownContainers,
  start,
} from "./harness/docker.js";
import { busybox } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

const MiB = 1024 * 1024;
const { named } = ownContainers();

interface Stats {
  name: string;
  id: string;
  read: string;
  preread: string;
  pids_stats: { current?: number; limit?: number };
  cpu_stats: {
    cpu_usage: { total_usage: number };
    system_cpu_usage?: number;
    online_cpus?: number;
  };
  precpu_stats: Stats["cpu_stats"];
  memory_stats: {
    usage?: number;
    limit?: number;
    stats?: Record<string, number>;
  };
  blkio_stats: {
    io_service_bytes_recursive:
      { major: number; minor: number; op: string; value: number }[] | null;
  };
  networks?: Record<string, { rx_bytes: number; tx_bytes: number }>;
  machine?: { pid: number; cpu_usage: number; memory_resident: number };
}

async function statsOf(name: string, query: string): Promise<Stats> {
  const { status, json } = await api(
    "GET",
    `/containers/${name}/stats?${query}`,
  );
  assert.equal(status, 200);
  return json as Stats;
}

describe("docker stats", () => {
  const name = named("stats");
  before(async () => {
    await dockerOk([
      ...[
        "run",
        "-d",
        "--name",
        name,
        "--memory",
        "100m",
        "--pids-limit",
        "40",
      ],
      ...[busybox(), "sh", "-c"],
      "dd if=/dev/zero of=/file bs=1M count=8 2>/dev/null; sync; while :; do :; done",
    ]);
    await eventually(async () =>
      assert.match(await dockerOk(["exec", name, "ls", "/"]), /^file$/m),
    );
  });

  test("--no-stream shows CPU, memory, network, disk and processes", async () => {
    const line = await dockerOk([
      ...["stats", "--no-stream", "--format"],
      "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}} {{.NetIO}} {{.BlockIO}}",
      name,
    ]);
    const [, cpu, memory, pids] =
      new RegExp(
        `^${name} ([\\d.]+)% ([\\d.]+)MiB / 100MiB (\\d+) [\\d.]+k?B / [\\d.]+k?B [\\d.]+[kM]?B / [\\d.]+[kM]?B$`,
      ).exec(line) ?? [];
    assert.ok(Number(cpu) > 20 && Number(cpu) < 130, line);
    assert.ok(Number(memory) > 0.1, line);
    assert.ok(Number(pids) >= 1, line);
  });

  test("the API's numbers are those of the container's cgroup", async () => {
    await dockerOk(["exec", name, "sh", "-c", "ping -c 1 -W 1 192.0.2.1 || :"]);
    const stats = await statsOf(name, "stream=false");
    assert.equal(stats.name, `/${name}`);
    assert.ok(Date.parse(stats.read) - Date.parse(stats.preread) >= 900);
    const cpu = stats.cpu_stats.cpu_usage.total_usage;
    const before = stats.precpu_stats.cpu_usage.total_usage;
    assert.ok(cpu - before > 1e8 && cpu - before < 3e9, `${cpu - before} ns`);
    assert.equal(stats.cpu_stats.online_cpus, 1);
    const system =
      (stats.cpu_stats.system_cpu_usage ?? 0) -
      (stats.precpu_stats.system_cpu_usage ?? 0);
    assert.ok(system > 5e8 && system < 5e9, `${system} ns`);
    assert.equal(stats.memory_stats.limit, 100 * MiB);
    assert.ok((stats.memory_stats.usage ?? 0) > 100_000);
    assert.ok((stats.memory_stats.stats?.["file"] ?? 0) >= 0);
    assert.equal(stats.pids_stats.limit, 40);
    assert.ok((stats.pids_stats.current ?? 0) >= 1);
    const written = stats.blkio_stats.io_service_bytes_recursive
      ?.filter(({ op }) => op === "write")
      .reduce((sum, { value }) => sum + value, 0);
    assert.ok((written ?? 0) >= 8 * MiB, `${written} bytes written`);
    assert.deepEqual(Object.keys(stats.networks ?? {}), ["eth0"]);
    const { Pid } = (await inspect(name)).State;
    assert.equal(stats.machine?.pid, Pid);
    assert.ok((stats.machine?.cpu_usage ?? 0) > 1e8);
    assert.ok((stats.machine?.memory_resident ?? 0) > 10 * MiB);
  });

  test("one-shot answers at once, without a sample before", async () => {
    const started = Date.now();
    const stats = await statsOf(name, "stream=false&one-shot=true");
    assert.ok(Date.now() - started < 900);
    assert.equal(stats.preread, "0001-01-01T00:00:00Z");
    assert.equal(stats.precpu_stats.cpu_usage.total_usage, 0);
  });

  test("the stream goes on over a pause and a stop, and ends with the container", async () => {
    const other = named("stats-stream");
    await dockerOk(["run", "-d", "--name", other, busybox(), "sleep", "1000"]);
    const stream = start([
      "stats",
      "--format",
      "{{.PIDs}} {{.MemPerc}}",
      other,
    ]);
    await stream.stdoutMatches(/1 0\.\d\d%/);
    await dockerOk(["pause", other]);
    const { memory_stats } = await statsOf(other, "stream=false&one-shot=true");
    assert.ok((memory_stats.usage ?? 0) > 10_000);
    await dockerOk(["unpause", other]);
    await dockerOk(["stop", "-t", "0", other]);
    const ended = await statsOf(other, "stream=false");
    assert.deepEqual(ended.memory_stats, {});
    assert.deepEqual(ended.pids_stats, {});
    const raw = api("GET", `/containers/${other}/stats`);
    await dockerOk(["rm", other]);
    assert.equal((await raw).status, 200);
    stream.kill("SIGKILL");
    await stream.result;
  });

  test("an unknown container", async () => {
    const { code, stderr } = await docker(["stats", "--no-stream", "no-such"]);
    assert.equal(code, 1);
    assert.match(stderr, /No such container: no-such/);
  });
});

test("ps -s and inspect -s show what was written", async () => {
  const name = named("size");
  await dockerOk([
    ...["run", "-d", "--name", name, busybox(), "sh", "-c"],
    "dd if=/dev/zero of=/file bs=1M count=3 2>/dev/null; sync; echo done; exec sleep 1000",
  ]);
  await eventually(async () =>
    assert.equal(await dockerOk(["logs", name]), "done"),
  );
  const sizes = async () => {
    const text = await dockerOk([
      ...["inspect", "-s", "--format", "{{.SizeRw}} {{.SizeRootFs}}", name],
    ]);
    return text.split(" ").map(Number);
  };
  const [written = 0, root = 0] = await sizes();
  assert.ok(written >= 3 * MiB && written < 3.2 * MiB, `${written} bytes`);
  assert.ok(root > written);
  const shown = await dockerOk([
    ...["ps", "-s", "--filter", `name=^${name}$`, "--format", "{{.Size}}"],
  ]);
  assert.match(shown, /^3\.\d+MB \(virtual [\d.]+MB\)$/);
  await dockerOk(["stop", "-t", "0", name]);
  const [stopped = 0] = await sizes();
  assert.ok(stopped >= 3 * MiB && stopped < 60 * MiB, `${stopped} bytes`);
});

test("log driver local, and --details", async () => {
  const name = named("details");
  await dockerOk([
    ...["run", "--name", name, "--log-driver", "local"],
    ...["--log-opt", "labels=tier,absent", "--log-opt", "env=MODE"],
    ...["--label", "tier=a b", "-e", "MODE=x", busybox(), "echo", "hello"],
  ]);
  assert.equal(await dockerOk(["logs", name]), "hello");
  assert.equal(
    await dockerOk(["logs", "--details", name]),
    "MODE=x,tier=a+b hello",
  );
});

test("what a machine of its own cannot be given is refused by name", async () => {
  for (const [args, message] of [
    [["--pid", "host"], /HostConfig\.PidMode/],
    [["--ipc", "host"], /HostConfig\.IpcMode/],
    [["--uts", "host"], /HostConfig\.UTSMode/],
    [["--cgroupns", "host"], /HostConfig\.CgroupnsMode/],
    [["--device", "/dev/null"], /HostConfig\.Devices/],
    [["--security-opt", "apparmor=strict"], /a profile of apparmor/],
  ] as const) {
    const { code, stderr } = await docker(["create", ...args, busybox()]);
    assert.equal(code, 1, args.join(" "));
    assert.match(stderr, message);
  }
});
