import assert from "node:assert/strict";
import { test } from "node:test";
import {
  docker,
  dockerOk,
  inspect,
  ownContainers,
  start,
} from "./harness/docker.js";
import { busybox } from "./harness/environment.js";
import { eventually, sleep } from "./harness/wait.js";

const { named } = ownContainers();

test("attach sees what comes from now on, writes to stdin, and ends with the exit code", async () => {
  const name = named("attach");
  await dockerOk([
    "run",
    "-d",
    "-i",
    "--name",
    name,
    busybox(),
    "sh",
    "-c",
    'echo before; while read line; do echo "got $line"; echo "err $line" >&2; done; exit 6',
  ]);
  await eventually(async () =>
    assert.equal(await dockerOk(["logs", name]), "before"),
  );
  const attached = start(["attach", name]);
  await sleep(500);
  attached.stdin.write("one\n");
  await attached.stdoutMatches(/got one\n/);
  attached.stdin.write("two\n");
  await attached.stdoutMatches(/got two\n/);
  // Standard input of a container started with -d stays open when a client goes.
  attached.kill("SIGKILL");
  await attached.result;
  assert.equal((await inspect(name)).State.Running, true);

  const again = start(["attach", name]);
  await sleep(500);
  again.stdin.write("three\n");
  await again.stdoutMatches(/got three\n/);
  await dockerOk(["stop", "-t", "0", name]);
  const { code, stdout, stderr } = await again.result;
  assert.equal(code, 137);
  assert.equal(stdout, "got three\n");
  assert.equal(stderr, "err three\n");
  assert.equal(
    await dockerOk(["logs", name]),
    "before\ngot one\ngot two\ngot three",
  );
});

test("two clients attached see the same", async () => {
  const name = named("attach-twice");
  await dockerOk([
    "run",
    "-d",
    "-i",
    "--name",
    name,
    busybox(),
    "sh",
    "-c",
    'while read line; do echo "got $line"; done',
  ]);
  const first = start(["attach", "--no-stdin", name]);
  const second = start(["attach", name]);
  await sleep(700);
  second.stdin.write("shared\n");
  await Promise.all([
    first.stdoutMatches(/got shared\n/),
    second.stdoutMatches(/got shared\n/),
  ]);
  await dockerOk(["kill", name]);
  assert.equal((await first.result).code, 137);
  assert.equal((await second.result).code, 137);
});

test("a signal goes to the container with --sig-proxy, and only ends the CLI without", async () => {
  const name = named("sig-proxy");
  await dockerOk([
    "run",
    "-d",
    "--name",
    name,
    busybox(),
    "sh",
    "-c",
    'trap "echo got USR1" USR1; trap "echo got TERM; exit 8" TERM; while true; do sleep 0.2; done',
  ]);
  const proxied = start(["attach", name]);
  await sleep(700);
  proxied.kill("SIGUSR1");
  await proxied.stdoutMatches(/got USR1/);

  const apart = start(["attach", "--sig-proxy=false", name]);
  await sleep(700);
  // The CLI itself gives up at the third signal.
  for (let i = 0; i < 3; i++) {
    apart.kill("SIGINT");
    await sleep(100);
  }
  await apart.result;
  assert.equal((await inspect(name)).State.Running, true);

  proxied.kill("SIGTERM");
  const { code, stdout } = await proxied.result;
  assert.equal(code, 8);
  assert.match(stdout, /got TERM/);
});

test("attach to a container that does not run is refused", async () => {
  const name = named("attach-stopped");
  await dockerOk(["create", "--name", name, busybox(), "true"]);
  const { code, stderr } = await docker(["attach", name]);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /You cannot attach to a stopped container, start it first/,
  );
});

test("start -a -i attaches before the process begins", async () => {
  const name = named("start-attached");
  await dockerOk(["create", "-i", "--name", name, busybox(), "cat"]);
  const { code, stdout } = await docker(["start", "-a", "-i", name], {
    stdin: "through\n",
  });
  assert.equal(code, 0);
  assert.equal(stdout, "through\n");
});
