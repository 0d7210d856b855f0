import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import {
  docker,
  dockerOk,
  inspect,
  ownContainers,
  start,
  uniqueName,
} from "./harness/docker.js";
import { busybox, imageRef } from "./harness/environment.js";

const { containers, named } = ownContainers();

describe("docker run", () => {
  test("shows the output, and with --rm leaves no container", async () => {
    const name = uniqueName("rm");
    const { code, stdout, stderr } = await docker([
      "run",
      "--rm",
      "--name",
      name,
      busybox(),
      "echo",
      "hello",
    ]);
    assert.deepEqual(
      { code, stdout, stderr },
      { code: 0, stdout: "hello\n", stderr: "" },
    );
    assert.equal((await docker(["inspect", name])).code, 1);
  });

  test("keeps stdout and stderr apart and passes the exit code on", async () => {
    const name = named("code");
    const { code, stdout, stderr } = await docker([
      "run",
      "--name",
      name,
      busybox(),
      "sh",
      "-c",
      "echo out; echo err >&2; exit 3",
    ]);
    assert.deepEqual(
      { code, stdout, stderr },
      { code: 3, stdout: "out\n", stderr: "err\n" },
    );
    const { State } = await inspect(name);
    assert.equal(State.Status, "exited");
    assert.equal(State.ExitCode, 3);
    assert.equal(State.Running, false);
    assert.equal(State.OOMKilled, false);
    assert.ok(Date.parse(State.FinishedAt) >= Date.parse(State.StartedAt));
  });

  test("a flag that does not exist is 125", async () => {
    const { code, stderr } = await docker(["run", "--no-such-flag", busybox()]);
    assert.equal(code, 125);
    assert.match(stderr, /unknown flag: --no-such-flag/);
  });

  test("an image that does not exist is 125, after an attempt to pull it", async () => {
    const name = imageRef("no-such-image");
    const { code, stderr } = await docker(["run", "--rm", name, "true"]);
    assert.equal(code, 125);
    assert.match(stderr, new RegExp(`^Unable to find image '${name}' locally`));
    assert.match(stderr, /docker: Error response from daemon: /);
  });

  test("a command that is not there is 127, with Docker's message, and leaves a created container", async () => {
    const name = named("not-found");
    const { code, stderr } = await docker([
      "run",
      "--name",
      name,
      busybox(),
      "no-such-command",
      "x",
    ]);
    assert.equal(code, 127);
    assert.match(stderr, /docker: Error response from daemon: /);
    assert.match(
      stderr,
      /exec: "no-such-command": executable file not found in \$PATH/,
    );
    const { State } = await inspect(name);
    assert.equal(State.Status, "created");
    assert.equal(State.ExitCode, 127);
    assert.match(State.Error, /executable file not found in \$PATH/);

    const path = await docker(["run", "--rm", busybox(), "/no/such/path"]);
    assert.equal(path.code, 127);
    assert.match(
      path.stderr,
      /exec: "\/no\/such\/path": stat \/no\/such\/path: no such file or directory/,
    );
  });

  test("a file that cannot be executed is 126", async () => {
    const text = await docker([
      "run",
      "--rm",
      busybox(),
      "/etc/not-executable",
    ]);
    assert.equal(text.code, 126);
    assert.match(
      text.stderr,
      /exec: "\/etc\/not-executable": permission denied/,
    );
    const folder = await docker(["run", "--rm", busybox(), "/etc"]);
    assert.equal(folder.code, 126);
    assert.match(
      folder.stderr,
      /exec: "\/etc": (is a directory|permission denied)/,
    );
  });

  test("a program that is none is an exec format error, a missing interpreter is not found", async () => {
    const format = await docker([
      "run",
      "--rm",
      busybox(),
      "/bin/not-a-program",
    ]);
    assert.match(format.stdout + format.stderr, /exec format error/);
    assert.ok(
      [1, 125, 126, 255].includes(format.code ?? -1),
      String(format.code),
    );
    const script = await docker([
      "run",
      "--rm",
      busybox(),
      "/bin/bad-interpreter",
    ]);
    assert.match(script.stdout + script.stderr, /no such file or directory/);
    assert.ok([1, 127, 255].includes(script.code ?? -1), String(script.code));
  });

  test("-i passes bytes through unchanged: 1 MB there and back", async () => {
    const bytes = randomBytes(1024 * 1024);
    const {
      code,
      bytes: back,
      stderr,
    } = await docker(["run", "--rm", "-i", busybox(), "cat"], {
      stdin: bytes,
    });
    assert.equal(code, 0, stderr);
    const sum = (of: Buffer) => createHash("sha256").update(of).digest("hex");
    assert.equal(back.length, bytes.length);
    assert.equal(sum(back), sum(bytes));
  });

  test("without -i standard input is empty", async () => {
    assert.equal(
      await dockerOk(["run", "--rm", busybox(), "cat"], { stdin: "ignored" }),
      "",
    );
  });

  test("1 MB on both output streams at once", async () => {
    const { code, stdout, stderr } = await docker([
      "run",
      "--rm",
      busybox(),
      "sh",
      "-c",
      "yes out | head -c 1000000 & yes err | head -c 1000000 >&2; wait",
    ]);
    assert.equal(code, 0);
    assert.equal(stdout, "out\n".repeat(250_000));
    assert.equal(stderr, "err\n".repeat(250_000));
  });

  test("the environment, folder, user, hostname, labels and arguments of the command line", async () => {
    const name = named("settings");
    const out = await dockerOk(
      [
        "run",
        "--name",
        name,
        "-e",
        "GIVEN=a value",
        "-e",
        "FROM_HOST",
        "-e",
        "EMPTY=",
        "-w",
        "/made/on/demand",
        "-u",
        "1000:29",
        "--hostname",
        "some-host",
        "--label",
        "one=1",
        "--label",
        "two",
        busybox(),
        "sh",
        "-c",
        'env; pwd; id; hostname; cat /etc/hostname; stat -c %U /made/on/demand; echo "$0|$1"',
        "a b",
        "",
      ],
      { env: { FROM_HOST: "host's" } },
    );
    const lines = out.split("\n");
    for (const line of [
      "GIVEN=a value",
      "FROM_HOST=host's",
      "EMPTY=",
      "HOSTNAME=some-host",
      "HOME=/home/user",
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      "/made/on/demand",
      "uid=1000(user) gid=29(audio) groups=29(audio)",
      "some-host",
      "root",
      "a b|",
    ]) {
      assert.ok(lines.includes(line), `${line} is not in\n${out}`);
    }
    assert.equal(lines.filter((line) => line === "some-host").length, 2);
    const { Config } = await inspect(name);
    assert.deepEqual(Config.Labels, { one: "1", two: "" });
    assert.equal(Config.Hostname, "some-host");
    assert.equal(Config.User, "1000:29");
    assert.equal(Config.WorkingDir, "/made/on/demand");
    assert.ok(Config.Env.includes("GIVEN=a value"));
  });

  test("users by name get their groups; an unknown one is refused", async () => {
    assert.equal(
      await dockerOk(["run", "--rm", "-u", "user", busybox(), "id"]),
      "uid=1000(user) gid=1000(user) groups=10(wheel),29(audio),1000(user)",
    );
    assert.equal(
      await dockerOk([
        "run",
        "--rm",
        "-u",
        "4242",
        "--group-add",
        "audio",
        busybox(),
        "sh",
        "-c",
        "id; echo $HOME",
      ]),
      "uid=4242 gid=0(root) groups=0(root),29(audio)\n/",
    );
    const unknown = await docker([
      "run",
      "--rm",
      "-u",
      "nobody-here",
      busybox(),
      "id",
    ]);
    assert.equal(unknown.code, 125);
    assert.match(
      unknown.stderr,
      /unable to find user nobody-here: no matching entries in passwd file/,
    );
  });

  test("the image's settings, and what overrides them", async () => {
    const image = imageRef("configured");
    assert.equal(
      await dockerOk(["run", "--rm", image]),
      "entry default arguments",
    );
    assert.equal(
      await dockerOk(["run", "--rm", image, "other", "words"]),
      "entry other words",
    );
    const out = await dockerOk([
      "run",
      "--rm",
      "-e",
      "OVERRIDDEN=flag",
      "--label",
      "shared=flag",
      "--entrypoint",
      "sh",
      image,
      "-c",
      "id -un; pwd; echo $FROM_IMAGE $OVERRIDDEN; stat -c %u /work/dir",
    ]);
    assert.equal(out, "user\n/work/dir\nyes flag\n0");
    // An empty entrypoint takes the image's command away, too.
    const none = await docker(["run", "--rm", "--entrypoint", "", image]);
    assert.equal(none.code, 125);
    assert.match(none.stderr, /no command specified/i);
    assert.equal(
      await dockerOk([
        "run",
        "--rm",
        "--entrypoint",
        "",
        image,
        "echo",
        "alone",
      ]),
      "alone",
    );
  });

  test("a name in use is a conflict", async () => {
    const name = named("twice");
    const id = await dockerOk(["create", "--name", name, busybox()]);
    const { code, stderr } = await docker([
      "run",
      "--name",
      name,
      busybox(),
      "true",
    ]);
    assert.equal(code, 125);
    assert.ok(
      stderr.includes(
        `docker: Error response from daemon: Conflict. The container name "/${name}" is already in use by container "${id}". You have to remove (or rename) that container to be able to reuse that name.`,
      ),
      stderr,
    );
  });

  test("an invalid name is refused", async () => {
    const { code, stderr } = await docker([
      "run",
      "--name",
      "no spaces",
      busybox(),
      "true",
    ]);
    assert.equal(code, 125);
    assert.match(
      stderr,
      /Invalid container name \(no spaces\), only \[a-zA-Z0-9\]\[a-zA-Z0-9_\.-\] are allowed/,
    );
  });

  test("a container without a name gets one of two words", async () => {
    const id = await dockerOk(["create", busybox(), "true"]);
    containers.push(id);
    assert.match((await inspect(id)).Name, /^\/[a-z]+_[a-z]+\d?$/);
  });

  test("--cidfile holds the ID, --pull never does not pull", async () => {
    const never = await docker([
      "run",
      "--rm",
      "--pull",
      "never",
      imageRef("moving", "nowhere"),
      "true",
    ]);
    assert.equal(never.code, 125);
    assert.match(never.stderr, /No such image/);
  });

  test("-d prints the ID and the container goes on", async () => {
    const name = named("detached");
    const id = await dockerOk([
      "run",
      "-d",
      "--name",
      name,
      busybox(),
      "sleep",
      "1000",
    ]);
    assert.match(id, /^[0-9a-f]{64}$/);
    const container = await inspect(name);
    assert.equal(container.Id, id);
    assert.equal(container.State.Status, "running");
    assert.ok(container.State.Pid > 0);
    assert.equal(container.Path, "sleep");
    assert.deepEqual(container.Args, ["1000"]);
    assert.equal(await dockerOk(["rm", "-f", name]), name);
  });

  test("signals to the CLI reach the container", async () => {
    const name = named("proxy");
    const cli = start([
      "run",
      "--name",
      name,
      busybox(),
      "sh",
      "-c",
      'trap "echo terminated; exit 7" TERM; echo ready; while true; do sleep 0.2; done',
    ]);
    await cli.stdoutMatches(/ready/);
    cli.kill("SIGTERM");
    const { code, stdout } = await cli.result;
    assert.equal(code, 7);
    assert.equal(stdout, "ready\nterminated\n");
  });

  test("a process ended by a signal gives 128 + its number", async () => {
    const name = named("killed");
    const cli = start([
      "run",
      "--name",
      name,
      busybox(),
      "sh",
      "-c",
      "echo ready; sleep 1000",
    ]);
    await cli.stdoutMatches(/ready/);
    assert.equal(await dockerOk(["kill", name]), name);
    assert.equal((await cli.result).code, 137);
    assert.equal((await inspect(name)).State.ExitCode, 137);
    assert.equal((await inspect(name)).State.OOMKilled, false);

    const term = await docker([
      "run",
      "--rm",
      busybox(),
      "sh",
      "-c",
      "sh -c 'kill -TERM $$'; exit $?",
    ]);
    assert.equal(term.code, 143);
  });
});
