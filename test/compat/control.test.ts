import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { before, describe, test } from "node:test";
import { api, messageOf } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import { docker, dockerOk, inspect, ownContainers } from "./harness/docker.js";
import { busybox } from "./harness/environment.js";
import { eventually, sleep } from "./harness/wait.js";
import { terminal } from "./harness/terminal.js";

const MiB = 1024 * 1024;
const { named } = ownContainers();

interface HostLimits {
  HostConfig: {
    Memory: number;
    NanoCpus: number;
    PidsLimit: number | null;
    RestartPolicy: { Name: string; MaximumRetryCount: number };
  };
}

const refused = async (args: string[], message: RegExp, code = 1) => {
  const result = await docker(args);
  assert.equal(result.code, code, `${args.join(" ")}: ${result.stderr}`);
  assert.match(result.stderr, message);
};

describe("docker update", () => {
  const name = named("update");
  const sh = (script: string) => dockerOk(["exec", name, "sh", "-c", script]);
  before(() =>
    dockerOk([
      ...["run", "-d", "--name", name, "--memory", "128m", "--cpus", "1"],
      ...["--pids-limit", "60", busybox(), "sleep", "1000"],
    ]),
  );

  test("sets limits of the running container, and keeps them in the record", async () => {
    await dockerOk([
      ...["update", "--memory", "64m", "--cpus", "0.5"],
      ...["--pids-limit", "30", name],
    ]);
    assert.equal(
      await sh("cd /sys/fs/cgroup; cat memory.max cpu.max pids.max"),
      `${64 * MiB}\n50000 100000\n30`,
    );
    const { HostConfig } = await inspect<HostLimits>(name);
    assert.equal(HostConfig.Memory, 64 * MiB);
    assert.equal(HostConfig.NanoCpus, 5e8);
    assert.equal(HostConfig.PidsLimit, 30);
    await dockerOk(["update", "--pids-limit", "-1", name]);
    assert.equal(await sh("cat /sys/fs/cgroup/pids.max"), "max");
  });

  test("more than the running machine has is refused, and nothing is changed", async () => {
    await refused(
      ["update", "--memory", "900m", name],
      /Cannot update container [0-9a-f]{64}: Memory: 900 MiB are more than the \d+ MiB of the machine it runs in: stop the container/,
    );
    await refused(
      ["update", "--memory", "1m", name],
      /Minimum memory limit allowed is 6MB/,
    );
    await refused(
      ["update", "--cpuset-cpus", "0", name],
      /hull does not support HostConfig\.CpusetCpus/,
    );
    assert.equal((await inspect<HostLimits>(name)).HostConfig.Memory, 64 * MiB);
    assert.equal(await sh("cat /sys/fs/cgroup/memory.max"), String(64 * MiB));
  });

  test("the restart policy; of a --rm container it stays", async () => {
    await dockerOk(["update", "--restart", "on-failure:3", name]);
    assert.deepEqual(
      (await inspect<HostLimits>(name)).HostConfig.RestartPolicy,
      { Name: "on-failure", MaximumRetryCount: 3 },
    );
    const { status, json } = await api("POST", `/containers/${name}/update`, {
      RestartPolicy: { Name: "always", MaximumRetryCount: 3 },
    });
    assert.equal(status, 400, JSON.stringify(json));
    const once = named("update-rm");
    await dockerOk(["create", "--rm", "--name", once, busybox(), "true"]);
    await refused(
      ["update", "--restart", "always", once],
      /Restart policy cannot be updated because AutoRemove is enabled for the container/,
    );
  });

  test("limits of a stopped container are in force when it starts", async () => {
    await dockerOk(["stop", "-t", "0", name]);
    await dockerOk(["update", "--memory", "900m", name]);
    await dockerOk(["start", name]);
    assert.equal(await sh("cat /sys/fs/cgroup/memory.max"), String(900 * MiB));
  });

  test("an unknown container, a wrong body", async () => {
    await refused(
      ["update", "--memory", "64m", "no-such"],
      /No such container: no-such/,
    );
    const wrong = await api("POST", `/containers/${name}/update`, {
      Memory: "much",
    });
    assert.equal(wrong.status, 400);
    assert.match(messageOf(wrong), /Memory/);
  });
});

describe("restart policies", () => {
  const startsOf = async (name: string, since: string) =>
    (
      await dockerOk([
        ...["events", "--since", since],
        ...["--until", String(Date.now() / 1000), "--filter", "event=start"],
        ...["--filter", `container=${name}`, "--format", "{{.TimeNano}}"],
      ])
    )
      .split("\n")
      .filter(Boolean)
      .map((nanos) => Number(nanos) / 1e6);

  test("waits longer before each restart, counts them, and gives up after on-failure:N", async () => {
    const name = named("backoff");
    const since = String(Date.now() / 1000 - 1);
    await dockerOk([
      ...["run", "-d", "--name", name, "--restart", "on-failure:4"],
      ...[busybox(), "false"],
    ]);
    await eventually(
      async () => {
        const { State, RestartCount } = await inspect(name);
        assert.deepEqual([State.Status, RestartCount], ["exited", 4]);
      },
      { timeout: 60_000, interval: 300 },
    );
    const { State } = await inspect(name);
    assert.equal(State.ExitCode, 1);
    const starts = await startsOf(name, since);
    assert.equal(starts.length, 5);
    const gaps = starts.slice(1).map((at, i) => at - (starts[i] ?? 0));
    // 100, 200, 400, 800 ms on top of what a start and an end take.
    assert.ok((gaps[3] ?? 0) >= 800, gaps.join(" "));
    assert.ok((gaps[2] ?? 0) >= 400, gaps.join(" "));
  });

  test("a container that waits for its restart can be stopped, killed with its policy changed, and removed", async () => {
    const name = named("waiting");
    await dockerOk([
      ...["run", "-d", "--name", name, "--restart", "always"],
      ...[busybox(), "false"],
    ]);
    const restarting = () =>
      eventually(
        async () =>
          assert.equal((await inspect(name)).State.Status, "restarting"),
        { interval: 20, timeout: 60_000 },
      );
    await restarting();
    assert.match(
      await dockerOk([
        "ps",
        "--filter",
        `name=^${name}$`,
        "--format",
        "{{.Status}}",
      ]),
      /^(Restarting \(1\) .* ago|Up .*)$/,
    );
    await dockerOk(["stop", name]);
    assert.equal((await inspect(name)).State.Status, "exited");
    await sleep(1500);
    assert.equal((await inspect(name)).State.Status, "exited");
    await dockerOk(["start", name]);
    await restarting();
    await dockerOk(["update", "--restart", "no", name]);
    await eventually(
      async () => assert.equal((await inspect(name)).State.Status, "exited"),
      { timeout: 30_000 },
    );
    await dockerOk(["update", "--restart", "always", name]);
    await dockerOk(["start", name]);
    await restarting();
    await dockerOk(["rm", "-f", name]);
    assert.equal((await docker(["inspect", name])).code, 1);
  });

  test("unless-stopped after a restart of the daemon: what was stopped stays so, what ended is started", async () => {
    const stopped = named("unless-stopped");
    const always = named("always-stopped");
    const running = named("unless-running");
    const run = (name: string, policy: string) =>
      dockerOk([
        ...["run", "-d", "--name", name, "--restart", policy],
        ...[busybox(), "sleep", "1000"],
      ]);
    await Promise.all([
      run(stopped, "unless-stopped"),
      run(always, "always"),
      run(running, "unless-stopped"),
    ]);
    await dockerOk(["stop", "-t", "0", stopped, always]);
    await Daemon.shared().crashAndRestart();
    await eventually(async () =>
      assert.equal((await inspect(always)).State.Status, "running"),
    );
    assert.equal((await inspect(running)).State.Status, "running");
    assert.equal((await inspect(stopped)).State.Status, "exited");
  });
});

describe("pause", () => {
  const name = named("paused");
  before(async () => {
    await dockerOk([
      ...["run", "-d", "--name", name, busybox()],
      ...["sh", "-c", "while :; do echo >> /ticks; sleep 0.1; done"],
    ]);
    await dockerOk(["exec", name, "true"]);
    await dockerOk(["pause", name]);
  });

  test("exec, attach, start, pause and top answer as Docker's", async () => {
    const { Id } = await inspect(name);
    await refused(
      ["exec", name, "true"],
      new RegExp(
        `Container ${name} is paused, unpause the container before exec`,
      ),
    );
    await refused(
      ["attach", name],
      /cannot attach to a paused container, unpause it first|container is paused, unpause the container before attach/i,
    );
    await refused(
      ["start", name],
      /cannot start a paused container, try unpause instead/,
    );
    await refused(
      ["pause", name],
      new RegExp(`Container ${Id} is already paused`),
    );
    await refused(
      ["rm", name],
      /container is paused and must be unpaused first|container is paused: unpause/,
    );
    await refused(
      ["update", "--memory", "64m", name],
      /unpause the container before its limits are changed/,
    );
  });

  test("the whole machine stands still", async () => {
    const { Pid } = (await inspect(name)).State;
    const cpuTicks = () => {
      const fields = readFileSync(`/proc/${Pid}/stat`, "utf8").split(" ");
      return Number(fields[13]) + Number(fields[14]);
    };
    const before = cpuTicks();
    await sleep(1000);
    assert.ok(cpuTicks() - before <= 5, "a machine that is paused works");
    await dockerOk(["unpause", name]);
    const lines = async () =>
      Number(await dockerOk(["exec", name, "sh", "-c", "wc -l < /ticks"]));
    const count = await lines();
    await eventually(async () => assert.ok((await lines()) > count));
    await refused(["unpause", name], /is not paused/);
  });

  test("stop and kill of a paused container", async () => {
    await dockerOk(["pause", name]);
    await dockerOk(["stop", "-t", "1", name]);
    assert.equal((await inspect(name)).State.Status, "exited");
  });
});

describe("--init", () => {
  test("process 1 is Docker's init, and the program its child; orphans are reaped", async () => {
    const name = named("init");
    await dockerOk([
      ...["run", "-d", "--init", "--name", name, busybox(), "sh", "-c"],
      "trap 'exit 9' TERM; (sleep 0.2 & exec sleep 0.1) & while :; do sleep 0.1; done",
    ]);
    assert.match(
      await dockerOk(["exec", name, "ps", "-o", "pid,args"]),
      /^ +1 \/sbin\/docker-init -- sh -c /m,
    );
    await sleep(1000);
    assert.doesNotMatch(
      await dockerOk(["exec", name, "ps", "-o", "stat,args"]),
      /^Z/m,
    );
    await dockerOk(["stop", name]);
    assert.equal((await inspect(name)).State.ExitCode, 9);
  });

  test("passes exit codes and deadly signals on; a missing command is 127; other users, too", async () => {
    const code = async (...args: string[]) =>
      (await docker(["run", "--rm", "--init", ...args])).code;
    assert.equal(await code(busybox(), "sh", "-c", "exit 7"), 7);
    assert.equal(await code(busybox(), "sh", "-c", "kill -9 $$"), 137);
    assert.equal(await code(busybox(), "no-such-command"), 127);
    assert.equal(
      await dockerOk([
        ...["run", "--rm", "--init", "-u", "1000", "--cap-drop", "ALL"],
        ...["--read-only", busybox(), "sh", "-c", "id -u; echo $PPID"],
      ]),
      "1000\n1",
    );
  });

  test("a terminal's Ctrl-C is for the program", async () => {
    const session = terminal([
      ...["run", "--rm", "-it", "--init", busybox(), "sh", "-c"],
      "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.1; done",
    ]);
    await session.shows(/ready/);
    session.type("\x03");
    await session.shows(/caught/);
    assert.equal(await session.exit, 4);
  });
});
