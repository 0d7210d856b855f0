import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import {
  docker,
  dockerOk,
  inspect,
  removeContainers,
  start,
  uniqueName,
} from "./harness/docker.js";
import { busybox } from "./harness/environment.js";
import { api, messageOf } from "./harness/api.js";
import { eventually } from "./harness/wait.js";

describe("docker exec", () => {
  const name = uniqueName("exec");
  const exec = (...args: string[]) => docker(["exec", ...args]);

  before(() =>
    dockerOk([
      "run",
      "-d",
      "--name",
      name,
      "-e",
      "OF_CONTAINER=yes",
      "-w",
      "/tmp",
      busybox(),
      "sleep",
      "10000",
    ]),
  );
  after(() => removeContainers(name));

  test("output, streams apart, and the exit code", async () => {
    const { code, stdout, stderr } = await exec(
      name,
      "sh",
      "-c",
      "echo out; echo err >&2; exit 42",
    );
    assert.deepEqual(
      { code, stdout, stderr },
      { code: 42, stdout: "out\n", stderr: "err\n" },
    );
    assert.equal((await inspect(name)).State.Running, true);
  });

  test("runs in the container: its folder, environment, processes and files", async () => {
    const { stdout } = await exec(
      name,
      "sh",
      "-c",
      "pwd; echo $OF_CONTAINER $HOME; cat /proc/1/cmdline | tr '\\0' ' '",
    );
    assert.equal(stdout, "/tmp\nyes /root\nsleep 10000 ");
    await exec(name, "sh", "-c", "echo written > /tmp/file");
    assert.equal((await exec(name, "cat", "file")).stdout, "written\n");
  });

  test("-e, -w and -u", async () => {
    const { stdout } = await exec(
      "-e",
      "A=b c",
      "-e",
      "OF_CONTAINER=changed",
      "-w",
      "/etc",
      "-u",
      "user",
      name,
      "sh",
      "-c",
      "echo $A $OF_CONTAINER $HOME; pwd; id",
    );
    assert.equal(
      stdout,
      "b c changed /home/user\n/etc\nuid=1000(user) gid=1000(user) groups=10(wheel),29(audio),1000(user)\n",
    );
  });

  test("-i passes 1 MB through and closes standard input", async () => {
    const bytes = randomBytes(1024 * 1024);
    const back = await docker(["exec", "-i", name, "cat"], { stdin: bytes });
    assert.equal(back.code, 0);
    assert.ok(back.bytes.equals(bytes));
  });

  test("a command that is not there is 127, one that cannot be executed 126", async () => {
    const missing = await exec(name, "no-such-command");
    assert.equal(missing.code, 127);
    assert.match(
      missing.stdout + missing.stderr,
      /exec: "no-such-command": executable file not found in \$PATH/,
    );
    const denied = await exec(name, "/etc/not-executable");
    assert.equal(denied.code, 126);
    assert.match(denied.stdout + denied.stderr, /permission denied/);
  });

  test("a folder or user that is not there", async () => {
    const folder = await exec("-w", "/no/such/folder", name, "true");
    assert.notEqual(folder.code, 0);
    assert.match(folder.stdout + folder.stderr, /no such file or directory/);
    const user = await exec("-u", "nobody-here", name, "true");
    assert.notEqual(user.code, 0);
    assert.match(
      user.stdout + user.stderr,
      /unable to find user nobody-here: no matching entries in passwd file/,
    );
  });

  test("-d returns at once and the process goes on", async () => {
    const { code, stdout } = await exec(
      "-d",
      name,
      "sh",
      "-c",
      "sleep 0.5; echo late > /tmp/late",
    );
    assert.deepEqual({ code, stdout }, { code: 0, stdout: "" });
    await eventually(async () =>
      assert.equal((await exec(name, "cat", "/tmp/late")).stdout, "late\n"),
    );
  });

  test("many at once", async () => {
    const results = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        exec(name, "sh", "-c", `echo ${i}; exit ${i}`),
      ),
    );
    assert.deepEqual(
      results.map(({ code, stdout }) => [code, stdout]),
      Array.from({ length: 8 }, (_, i) => [i, `${i}\n`]),
    );
  });

  test("no process is left behind, dead or alive", async () => {
    const { stdout } = await exec(name, "ps", "-o", "pid,stat,args");
    const processes = stdout.trim().split("\n").slice(1);
    assert.equal(processes.length, 2, stdout);
    assert.doesNotMatch(stdout, /^\s*\d+ Z/m);
  });

  test("the end of the container ends it with 137", async () => {
    const other = uniqueName("exec-killed");
    await dockerOk(["run", "-d", "--name", other, busybox(), "sleep", "1000"]);
    const long = start(["exec", other, "sh", "-c", "echo ready; sleep 1000"]);
    await long.stdoutMatches(/ready/);
    await dockerOk(["kill", other]);
    assert.equal((await long.result).code, 137);
    await removeContainers(other);
  });

  test("inspect tells the API how it ended", async () => {
    const created = await api("POST", `/containers/${name}/exec`, {
      Cmd: ["sh", "-c", "exit 5"],
      AttachStdout: true,
    });
    assert.equal(created.status, 201);
    const { Id } = created.json as { Id: string };
    const fresh = (await api("GET", `/exec/${Id}/json`)).json as Record<
      string,
      unknown
    >;
    assert.equal(fresh["Running"], false);
    assert.equal(fresh["ExitCode"], null);
    const started = await api("POST", `/exec/${Id}/start`, { Detach: true });
    assert.equal(started.status, 200);
    await eventually(async () => {
      const now = (await api("GET", `/exec/${Id}/json`)).json as Record<
        string,
        unknown
      >;
      assert.equal(now["Running"], false);
      assert.equal(now["ExitCode"], 5);
    });
    const again = await api("POST", `/exec/${Id}/start`, { Detach: true });
    assert.equal(again.status, 409);
    const unknown = await api("GET", "/exec/0123456789/json");
    assert.equal(unknown.status, 404);
    assert.equal(messageOf(unknown), "No such exec instance: 0123456789");
  });
});

test("exec in a container that does not run is refused", async () => {
  const name = uniqueName("exec-stopped");
  const id = await dockerOk(["create", "--name", name, busybox(), "true"]);
  const { code, stderr } = await docker(["exec", name, "true"]);
  assert.equal(code, 1);
  assert.equal(
    stderr.trim(),
    `Error response from daemon: container ${id} is not running`,
  );
  await removeContainers(name);
});

test("exec in an unknown container", async () => {
  const { code, stderr } = await docker(["exec", "no-such-container", "true"]);
  assert.equal(code, 1);
  assert.equal(
    stderr.trim(),
    "Error response from daemon: No such container: no-such-container",
  );
});
