import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { api } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import { docker, dockerOk, ownContainers } from "./harness/docker.js";
import { busybox, imageRef } from "./harness/environment.js";
import { eventually, sleep } from "./harness/wait.js";

interface Health {
  Status: string;
  FailingStreak: number;
  Log: { Start: string; End: string; ExitCode: number; Output: string }[];
}

const { named } = ownContainers();

async function healthOf(name: string): Promise<Health> {
  const { json } = await api("GET", `/containers/${name}/json`);
  return (json as { State: { Health: Health } }).State.Health;
}

const becomes = (name: string, status: string) =>
  eventually(async () => assert.equal((await healthOf(name)).Status, status), {
    what: `${name} is ${status}`,
  });

const statusOf = (name: string) =>
  dockerOk([
    "ps",
    "-a",
    "--filter",
    `name=^${name}$`,
    "--format",
    "{{.Status}}",
  ]);

describe("a healthcheck of the command line", () => {
  const name = named("health");
  const since = String(Math.floor(Date.now() / 1000));
  before(() =>
    dockerOk([
      ...["run", "-d", "--name", name],
      ...["--health-cmd", "cat /state; test -e /good"],
      ...["--health-interval", "1s", "--health-retries", "2"],
      ...[busybox(), "sh", "-c", "echo ok > /state; exec sleep 1000"],
    ]),
  );

  test("starts as starting, and becomes healthy, unhealthy and healthy again by its exit codes", async () => {
    assert.equal((await healthOf(name)).Status, "starting");
    assert.match(await statusOf(name), /^Up .* \(health: starting\)$/);
    await dockerOk(["exec", name, "touch", "/good"]);
    await becomes(name, "healthy");
    assert.match(await statusOf(name), /^Up .* \(healthy\)$/);
    await dockerOk(["exec", name, "rm", "/good"]);
    await becomes(name, "unhealthy");
    assert.match(await statusOf(name), /^Up .* \(unhealthy\)$/);
    const { FailingStreak, Log } = await healthOf(name);
    assert.ok(FailingStreak >= 2);
    assert.ok(Log.length <= 5);
    assert.deepEqual(Log.at(-1)?.ExitCode, 1);
    assert.equal(Log.at(-1)?.Output, "ok\n");
    assert.ok(Date.parse(Log.at(-1)?.End ?? "") > 0);
    await dockerOk(["exec", name, "touch", "/good"]);
    await becomes(name, "healthy");
    assert.equal((await healthOf(name)).FailingStreak, 0);
  });

  test("ps filters by health", async () => {
    const list = (health: string) =>
      dockerOk([
        ...["ps", "--filter", `health=${health}`],
        ...["--filter", `name=^${name}$`, "--format", "{{.Names}}"],
      ]);
    assert.equal(await list("healthy"), name);
    assert.equal(await list("none"), "");
    const wrong = await docker(["ps", "--filter", "health=fine"]);
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /unrecognized filter value for health: fine/);
  });

  test("probes and changes are told as events", async () => {
    const until = String(Math.floor(Date.now() / 1000) + 1);
    const actions = (
      await dockerOk([
        ...["events", "--since", since, "--until", until],
        ...["--filter", `container=${name}`, "--format", "{{.Action}}"],
      ])
    ).split("\n");
    assert.deepEqual(
      actions.filter((action) => action.startsWith("health_status")),
      [
        "health_status: healthy",
        "health_status: unhealthy",
        "health_status: healthy",
      ],
    );
    const probe = "/bin/sh -c cat /state; test -e /good";
    for (const action of [`exec_create: ${probe}`, `exec_start: ${probe}`]) {
      assert.ok(actions.includes(action), action);
    }
    assert.ok(actions.includes("exec_die"));
  });

  test("a paused container is not probed, and goes on afterwards", async () => {
    await dockerOk(["pause", name]);
    assert.match(await statusOf(name), /^Up .* \(Paused\)$/);
    const before = (await healthOf(name)).Log.at(-1)?.Start;
    await sleep(2500);
    assert.equal((await healthOf(name)).Log.at(-1)?.Start, before);
    await dockerOk(["unpause", name]);
    await becomes(name, "healthy");
    assert.notEqual((await healthOf(name)).Log.at(-1)?.Start, before);
  });

  test("a daemon that comes back goes on probing", async () => {
    // What the last probe said is on disk some milliseconds later.
    await sleep(300);
    await Daemon.shared().crashAndRestart();
    const { Status, Log } = await healthOf(name);
    assert.equal(Status, "healthy");
    await eventually(async () =>
      assert.notEqual(
        (await healthOf(name)).Log.at(-1)?.Start,
        Log.at(-1)?.Start,
      ),
    );
    await dockerOk(["exec", name, "rm", "/good"]);
    await becomes(name, "unhealthy");
  });

  test("after its end it is unhealthy; a start begins as starting", async () => {
    await dockerOk(["exec", name, "touch", "/good"]);
    await becomes(name, "healthy");
    await dockerOk(["stop", "-t", "0", name]);
    assert.equal((await healthOf(name)).Status, "unhealthy");
    assert.match(await statusOf(name), /^Exited \(137\)/);
    await dockerOk(["start", name]);
    assert.equal((await healthOf(name)).Status, "starting");
    await becomes(name, "healthy");
  });
});

test("a probe that takes too long is ended and counts as a failure; the start period forgives", async () => {
  const name = named("slow");
  await dockerOk([
    ...["run", "-d", "--name", name],
    ...["--health-cmd", "echo begun; exec sleep 100"],
    ...["--health-interval", "500ms", "--health-timeout", "700ms"],
    ...["--health-retries", "1", "--health-start-period", "4s"],
    ...["--health-start-interval", "200ms"],
    ...[busybox(), "sleep", "1000"],
  ]);
  await eventually(async () => {
    const { Log, Status, FailingStreak } = await healthOf(name);
    assert.equal(Log.at(-1)?.ExitCode, -1);
    assert.deepEqual([Status, FailingStreak], ["starting", 0]);
    assert.equal(
      Log.at(-1)?.Output,
      "Health check exceeded timeout (700ms): begun\n",
    );
  });
  await becomes(name, "unhealthy");
  assert.doesNotMatch(await dockerOk(["top", name]), /sleep 100$/m);
});

test("output is cut at 4096 bytes; a command that is not there is a failure", async () => {
  const long = named("long");
  const missing = named("missing");
  const probed = (name: string, check: string[]) => ({
    name,
    check,
    body: {
      Image: busybox(),
      Cmd: ["sleep", "1000"],
      Healthcheck: { Test: check, Interval: 5e8, Retries: 1 },
    },
  });
  for (const { name, body } of [
    probed(long, ["CMD-SHELL", "head -c 9000 /dev/zero | tr '\\0' x"]),
    probed(missing, ["CMD", "no-such-command"]),
  ]) {
    const { status } = await api(
      "POST",
      `/containers/create?name=${name}`,
      body,
    );
    assert.equal(status, 201);
    await dockerOk(["start", name]);
  }
  await becomes(long, "healthy");
  assert.equal((await healthOf(long)).Log[0]?.Output, "x".repeat(4096) + "...");
  await becomes(missing, "unhealthy");
  const [result] = (await healthOf(missing)).Log;
  assert.equal(result?.ExitCode, -1);
  assert.match(
    result?.Output ?? "",
    /exec: "no-such-command": executable file not found in \$PATH/,
  );
});

test("an image's HEALTHCHECK is in force unless it is overridden or switched off", async () => {
  const own = named("image-health");
  const off = named("no-health");
  await dockerOk(["run", "-d", "--name", own, imageRef("healthcheck")]);
  await becomes(own, "healthy");
  assert.equal((await healthOf(own)).Log[0]?.Output, "from the image\n");
  await dockerOk([
    ...["run", "-d", "--no-healthcheck", "--name", off],
    imageRef("healthcheck"),
  ]);
  assert.match(await statusOf(off), /^Up [^(]*$/);
});

test("a healthcheck that cannot be is refused, and nothing is made", async () => {
  const refused = async (healthcheck: object, message: RegExp) => {
    const { status, text } = await api(
      "POST",
      "/containers/create?name=never",
      {
        Image: busybox(),
        Healthcheck: healthcheck,
      },
    );
    assert.equal(status, 400);
    assert.match(text, message);
  };
  await refused(
    { Interval: 5 },
    /Interval in Healthcheck cannot be less than 1ms/,
  );
  await refused({ Retries: -1 }, /Retries in Healthcheck cannot be negative/);
  await refused({ Test: "true" }, /Healthcheck\.Test/);
  assert.equal((await api("GET", "/containers/never/json")).status, 404);
});
