import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { api, messageOf } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import {
  docker,
  dockerOk,
  inspect,
  ownContainers,
  start,
} from "./harness/docker.js";
import { busybox } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

const { containers, named } = ownContainers();

const PATIENT =
  'trap "exit 143" TERM; echo ready; while true; do sleep 0.1; done';

describe("stop, start, restart, kill", () => {
  test("stop asks first, and the container may answer; start begins again with the same files", async () => {
    const name = named("stop");
    await dockerOk([
      "run",
      "-d",
      "--name",
      name,
      busybox(),
      "sh",
      "-c",
      `date >> /starts; ${PATIENT}`,
    ]);
    await eventually(async () =>
      assert.match(await dockerOk(["logs", name]), /ready/),
    );
    const before = Date.now();
    assert.equal(await dockerOk(["stop", name]), name);
    assert.ok(
      Date.now() - before < 9_000,
      "it did not wait for the time limit",
    );
    const stopped = await inspect(name);
    assert.equal(stopped.State.Status, "exited");
    assert.equal(stopped.State.ExitCode, 143);
    assert.equal(stopped.State.Pid, 0);
    // Stopping what has stopped is no error.
    assert.equal(await dockerOk(["stop", name]), name);

    assert.equal(await dockerOk(["start", name]), name);
    assert.equal(await dockerOk(["start", name]), name);
    await eventually(async () =>
      assert.equal(
        await dockerOk(["exec", name, "sh", "-c", "wc -l < /starts"]),
        "2",
      ),
    );
    assert.equal((await inspect(name)).RestartCount, 0);
    assert.equal(await dockerOk(["restart", "-t", "5", name]), name);
    await eventually(async () =>
      assert.equal(
        await dockerOk(["exec", name, "sh", "-c", "wc -l < /starts"]),
        "3",
      ),
    );
    assert.equal((await dockerOk(["logs", name])).split("\n").length, 3);
  });

  test("stop kills what does not listen when its time is up", async () => {
    const name = named("stubborn");
    await dockerOk(["run", "-d", "--name", name, busybox(), "sleep", "1000"]);
    const before = Date.now();
    await dockerOk(["stop", "-t", "1", name]);
    assert.ok(Date.now() - before >= 1_000);
    assert.equal((await inspect(name)).State.ExitCode, 137);
  });

  test("the stop signal can be chosen", async () => {
    const name = named("stop-signal");
    await dockerOk([
      "run",
      "-d",
      "--name",
      name,
      "--stop-signal",
      "USR2",
      busybox(),
      "sh",
      "-c",
      'trap "echo USR2; exit 12" USR2; echo ready; while true; do sleep 0.1; done',
    ]);
    await eventually(async () =>
      assert.match(await dockerOk(["logs", name]), /ready/),
    );
    await dockerOk(["stop", name]);
    assert.equal((await inspect(name)).State.ExitCode, 12);
  });

  test("kill sends any signal, by name or number", async () => {
    const name = named("kill");
    await dockerOk([
      "run",
      "-d",
      "--name",
      name,
      busybox(),
      "sh",
      "-c",
      'trap "echo got USR1" USR1; trap "echo got HUP" HUP; echo ready; while true; do sleep 0.1; done',
    ]);
    await eventually(async () =>
      assert.match(await dockerOk(["logs", name]), /ready/),
    );
    await dockerOk(["kill", "-s", "USR1", name]);
    await eventually(async () =>
      assert.match(await dockerOk(["logs", name]), /got USR1/),
    );
    await dockerOk(["kill", "-s", "1", name]);
    await eventually(async () =>
      assert.match(await dockerOk(["logs", name]), /got HUP/),
    );
    const invalid = await docker(["kill", "-s", "NOSUCH", name]);
    assert.equal(invalid.code, 1);
    assert.match(invalid.stderr, /invalid signal: NOSUCH/i);
    await dockerOk(["kill", name]);
    await eventually(async () =>
      assert.equal((await inspect(name)).State.ExitCode, 137),
    );
    const id = (await inspect(name)).Id;
    const dead = await docker(["kill", name]);
    assert.equal(dead.code, 1);
    assert.match(
      dead.stderr,
      new RegExp(
        `cannot kill container: ${name}: container ${id} is not running`,
        "i",
      ),
    );
  });

  test("restart policy on-failure counts its restarts and gives up", async () => {
    const name = named("on-failure");
    await dockerOk([
      "run",
      "-d",
      "--name",
      name,
      "--restart",
      "on-failure:2",
      busybox(),
      "sh",
      "-c",
      "echo run; exit 9",
    ]);
    await eventually(
      async () => {
        const { RestartCount, State } = await inspect(name);
        assert.equal(State.Status, "exited");
        assert.equal(RestartCount, 2);
        assert.equal(State.ExitCode, 9);
      },
      { timeout: 60_000, interval: 300 },
    );
    assert.equal(await dockerOk(["logs", name]), "run\nrun\nrun");
  });

  test("a container that is stopped by hand is not restarted", async () => {
    const name = named("always");
    await dockerOk([
      "run",
      "-d",
      "--name",
      name,
      "--restart",
      "always",
      busybox(),
      "sleep",
      "1000",
    ]);
    await dockerOk(["stop", "-t", "0", name]);
    const { State, HostConfig } = await inspect(name);
    assert.equal(State.Status, "exited");
    assert.deepEqual(HostConfig.RestartPolicy, {
      Name: "always",
      MaximumRetryCount: 0,
    });
  });
});

describe("rm", () => {
  test("removes what has ended, and refuses what runs unless forced", async () => {
    const name = named("rm");
    await dockerOk(["run", "-d", "--name", name, busybox(), "sleep", "1000"]);
    const refused = await docker(["rm", name]);
    assert.equal(refused.code, 1);
    assert.match(
      refused.stderr,
      new RegExp(
        `cannot remove container "/?${name}": container is running: stop the container before removing or force remove`,
      ),
    );
    const machines = Daemon.shared().machines().length;
    assert.equal(await dockerOk(["rm", "-f", name]), name);
    await eventually(() =>
      assert.equal(Daemon.shared().machines().length, machines - 1),
    );
    const gone = await docker(["rm", name]);
    assert.equal(gone.code, 1);
    assert.equal(
      gone.stderr.trim(),
      `Error response from daemon: No such container: ${name}`,
    );
    // -f of what is not there is no error, as with rm(1).
    assert.equal((await docker(["rm", "-f", name])).code, 0);
  });

  test("container prune removes all that do not run", async () => {
    const name = named("prune");
    const id = await dockerOk([
      "create",
      "--name",
      name,
      "--label",
      "prune-me=yes",
      busybox(),
    ]);
    const out = await dockerOk([
      "container",
      "prune",
      "-f",
      "--filter",
      "label=prune-me=yes",
    ]);
    assert.match(out, new RegExp(`^Deleted Containers:\n${id}\n`));
    assert.equal((await docker(["inspect", name])).code, 1);
  });
});

describe("names and IDs", () => {
  test("rename", async () => {
    const name = named("old-name");
    const renamed = named("new-name");
    await dockerOk(["create", "--name", name, busybox()]);
    await dockerOk(["rename", name, renamed]);
    assert.equal((await inspect(renamed)).Name, `/${renamed}`);
    assert.equal((await docker(["inspect", name])).code, 1);
    const other = named("other");
    await dockerOk(["create", "--name", other, busybox()]);
    const taken = await docker(["rename", other, renamed]);
    assert.equal(taken.code, 1);
    assert.match(
      taken.stderr,
      /Conflict. The container name "\/new-name-.*" is already in use by container/,
    );
    const answer = await api(
      "POST",
      `/containers/${other}/rename?name=${renamed}`,
    );
    assert.equal(answer.status, 409);
  });

  test("an ID may be shortened as long as it is the only one", async () => {
    // Of 17 IDs two begin with the same hexadecimal digit.
    const ids = await Promise.all(
      Array.from({ length: 17 }, async () => {
        const answer = await api("POST", "/containers/create", {
          Image: busybox(),
        });
        assert.equal(answer.status, 201, answer.text);
        return (answer.json as { Id: string }).Id;
      }),
    );
    containers.push(...ids);
    const [first = ""] = ids;
    assert.equal((await inspect(first.slice(0, 12))).Id, first);
    const digits = ids.map((id) => id.slice(0, 1));
    const shared =
      digits.find((digit, at) => digits.indexOf(digit) !== at) ?? "";
    const ambiguous = await api("GET", `/containers/${shared}/json`);
    assert.ok(
      ambiguous.status === 400 || ambiguous.status === 404,
      String(ambiguous.status),
    );
    assert.match(
      messageOf(ambiguous),
      /multiple IDs found with provided prefix/i,
    );
    await docker(["rm", ...ids]);
  });

  test("unknown containers", async () => {
    for (const args of [
      ["start"],
      ["stop"],
      ["kill"],
      ["restart"],
      ["wait"],
      ["rename", "x"],
      ["top"],
    ] as const) {
      const [command, ...rest] = args;
      const { code, stderr } = await docker([
        command,
        "no-such-container",
        ...rest,
      ]);
      assert.equal(code, 1, command);
      assert.match(
        stderr,
        /^Error response from daemon: (cannot kill container: no-such-container: )?No such container: no-such-container/,
        command,
      );
    }
    const { stderr } = await docker(["inspect", "no-such-thing"]);
    assert.match(stderr, /no such object: no-such-thing/i);
  });
});

describe("wait", () => {
  test("gives the exit code when the container ends", async () => {
    const name = named("wait");
    await dockerOk([
      "run",
      "-d",
      "--name",
      name,
      busybox(),
      "sh",
      "-c",
      "sleep 1; exit 17",
    ]);
    assert.equal(await dockerOk(["wait", name]), "17");
    // Of one that has ended: at once.
    assert.equal(await dockerOk(["wait", name]), "17");
  });

  test("conditions next-exit and removed", async () => {
    const name = named("wait-removed");
    await dockerOk(["create", "--name", name, busybox(), "sh", "-c", "exit 3"]);
    const next = api("POST", `/containers/${name}/wait?condition=next-exit`);
    const removed = api("POST", `/containers/${name}/wait?condition=removed`);
    const early = await Promise.race([
      next,
      new Promise((resolve) => setTimeout(resolve, 300, "waits")),
    ]);
    assert.equal(early, "waits");
    await dockerOk(["start", name]);
    assert.deepEqual((await next).json, { StatusCode: 3 });
    await dockerOk(["rm", name]);
    assert.deepEqual((await removed).json, { StatusCode: 3 });
    const invalid = await api(
      "POST",
      `/containers/${name}/wait?condition=nonsense`,
    );
    assert.ok(invalid.status === 400 || invalid.status === 404);
  });
});

describe("ps and inspect", () => {
  const running = named("ps-running");
  const ended = named("ps-ended");
  const created = named("ps-created");

  test("ps lists, filters and formats", async () => {
    await dockerOk([
      "create",
      "--name",
      created,
      "--label",
      "kind=ps-test",
      busybox(),
      "true",
    ]);
    await docker([
      "run",
      "--name",
      ended,
      "--label",
      "kind=ps-test",
      busybox(),
      "sh",
      "-c",
      "exit 4",
    ]);
    await dockerOk([
      "run",
      "-d",
      "--name",
      running,
      "--label",
      "kind=ps-test",
      busybox(),
      "sleep",
      "1000",
    ]);

    const ps = async (...args: string[]) =>
      (
        await dockerOk([
          "ps",
          "--format",
          "{{.Names}}",
          "--filter",
          "label=kind=ps-test",
          ...args,
        ])
      )
        .split("\n")
        .filter(Boolean);
    assert.deepEqual(await ps(), [running]);
    // Newest first.
    assert.deepEqual(await ps("-a"), [running, ended, created]);
    assert.deepEqual(await ps("-l"), [running]);
    assert.deepEqual(await ps("-a", "-n", "2"), [running, ended]);
    assert.deepEqual(await ps("-a", "--filter", "status=exited"), [ended]);
    assert.deepEqual(await ps("--filter", "status=created"), [created]);
    assert.deepEqual(await ps("-a", "--filter", "exited=4"), [ended]);
    assert.deepEqual(await ps("-a", "--filter", "name=ps-run"), [running]);
    assert.deepEqual(await ps("-a", "--filter", `name=^/?${ended}$`), [ended]);
    assert.deepEqual(await ps("-a", "--filter", "label=kind=other"), []);
    assert.deepEqual(await ps("-a", "--filter", `ancestor=${busybox()}`), [
      running,
      ended,
      created,
    ]);
    assert.deepEqual(await ps("-a", "--filter", `before=${running}`), [
      ended,
      created,
    ]);
    assert.deepEqual(await ps("-a", "--filter", `since=${created}`), [
      running,
      ended,
    ]);
    const { Id } = await inspect(ended);
    assert.equal(
      await dockerOk([
        "ps",
        "-aq",
        "--no-trunc",
        "--filter",
        `id=${Id.slice(0, 8)}`,
      ]),
      Id,
    );

    const [line] = (
      await dockerOk([
        "ps",
        "--no-trunc",
        "--filter",
        `name=${running}`,
        "--format",
        "{{.ID}}|{{.Image}}|{{.Command}}|{{.Status}}|{{.State}}|{{.Labels}}",
      ])
    ).split("\n");
    const fields = line?.split("|") ?? [];
    assert.match(fields[0] ?? "", /^[0-9a-f]{64}$/);
    assert.deepEqual(fields.slice(1, 3), [busybox(), '"sleep 1000"']);
    assert.match(
      fields[3] ?? "",
      /^Up (Less than a second|\d+ seconds?|About a minute|\d+ minutes)$/,
    );
    assert.deepEqual(fields.slice(4), ["running", "kind=ps-test"]);

    const status = await dockerOk([
      "ps",
      "-a",
      "--filter",
      `name=${ended}`,
      "--format",
      "{{.Status}}",
    ]);
    assert.match(status, /^Exited \(4\) /);
    const invalid = await docker(["ps", "--filter", "nonsense=1"]);
    assert.equal(invalid.code, 1);
    assert.match(invalid.stderr, /invalid filter/);
    assert.equal((await docker(["ps", "--filter", "status=nonsense"])).code, 1);
  });

  test("inspect formats", async () => {
    assert.equal(
      await dockerOk([
        "inspect",
        "-f",
        "{{.State.Status}} {{.Config.Image}} {{len .Mounts}}",
        running,
      ]),
      `running ${busybox()} 0`,
    );
    assert.match(
      await dockerOk([
        "inspect",
        "-f",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        running,
      ]),
      /^\d+\.\d+\.\d+\.\d+$/,
    );
  });

  test("top shows the container's processes", async () => {
    const [head = "", line = ""] = (await dockerOk(["top", running])).split(
      "\n",
    );
    assert.match(head, /^UID\s+PID\s+PPID\s+C\s+STIME\s+TTY\s+TIME\s+CMD$/);
    assert.match(line, /^(root|0)\s+\d+\s+\d+\s.*sleep 1000$/);
  });

  test("pause holds a container, unpause lets it go on", async () => {
    const paused = await docker(["pause", running]);
    if (/not implemented/i.test(paused.stderr)) {
      assert.equal(
        (await api("POST", `/containers/${running}/pause`)).status,
        501,
      );
      return;
    }
    assert.equal(paused.code, 0, paused.stderr);
    assert.equal((await inspect(running)).State.Status, "paused");
    await dockerOk(["unpause", running]);
    assert.equal((await inspect(running)).State.Status, "running");
  });
});

test("a client that goes away while it waits leaves nothing behind", async () => {
  const name = named("gone");
  await dockerOk(["run", "-d", "--name", name, busybox(), "sleep", "1000"]);
  const clients = [
    ["wait", name],
    ["logs", "-f", name],
    ["attach", "--no-stdin", name],
    ["events"],
  ].map((args) => start(args));
  await new Promise((resolve) => setTimeout(resolve, 500));
  for (const client of clients) client.kill("SIGKILL");
  await Promise.all(clients.map((client) => client.result));
  assert.equal(await dockerOk(["exec", name, "echo", "alive"]), "alive");
});

test("several containers at once", async () => {
  const names = [1, 2, 3, 4].map(() => named("parallel"));
  const results = await Promise.all(
    names.map((name) =>
      docker(["run", "--name", name, busybox(), "hostname"], {
        timeout: 120_000,
      }),
    ),
  );
  for (const { code, stderr } of results) assert.equal(code, 0, stderr);
  assert.equal(new Set(results.map(({ stdout }) => stdout)).size, names.length);
});
