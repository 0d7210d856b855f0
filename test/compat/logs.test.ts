import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { before, describe, test } from "node:test";
import { gunzipSync } from "node:zlib";
import {
  docker,
  dockerOk,
  inspect,
  ownContainers,
  start,
} from "./harness/docker.js";
import { busybox } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

const { named } = ownContainers();

describe("docker logs of a container that has ended", () => {
  const name = named("logs");
  before(async () => {
    await docker([
      "run",
      "--name",
      name,
      busybox(),
      "sh",
      "-c",
      "for i in 1 2 3 4 5; do echo out $i; done; sleep 2; echo late; echo error >&2; printf no-newline",
    ]);
  });

  test("all of it, streams apart", async () => {
    const { code, stdout, stderr } = await docker(["logs", name]);
    assert.equal(code, 0);
    assert.equal(stdout, "out 1\nout 2\nout 3\nout 4\nout 5\nlate\nno-newline");
    assert.equal(stderr, "error\n");
  });

  test("-f of it ends at once", async () => {
    assert.match(
      await dockerOk(["logs", "-f", name], { timeout: 10_000 }),
      /no-newline$/,
    );
  });

  test("--tail", async () => {
    const { stdout, stderr } = await docker(["logs", "--tail", "3", name]);
    assert.equal(stdout, "late\nno-newline");
    assert.equal(stderr, "error\n");
    assert.equal(await dockerOk(["logs", "--tail", "0", name]), "");
    assert.equal(
      (await dockerOk(["logs", "--tail", "all", name])).split("\n").length,
      7,
    );
  });

  test("--timestamps are RFC 3339 with nanoseconds and never go back", async () => {
    const lines = (await dockerOk(["logs", "-t", name])).split("\n");
    const times = lines.map((line) => {
      const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) /.exec(line);
      assert.ok(match?.[1], line);
      return match[1];
    });
    assert.deepEqual(times, times.toSorted());
    const { State } = await inspect(name);
    assert.ok(
      times[0] && times[0] >= State.StartedAt.slice(0, 19),
      `${times[0]} ${State.StartedAt}`,
    );
  });

  test("--since and --until by time stamp", async () => {
    const lines = (await dockerOk(["logs", "-t", name])).split("\n");
    const late =
      lines.find((line) => line.endsWith(" late"))?.split(" ")[0] ?? "";
    assert.equal(
      await dockerOk(["logs", "--since", late, name]),
      "late\nno-newline",
    );
    assert.match(
      await dockerOk(["logs", "--until", late, name]),
      /^out 1\nout 2\nout 3\nout 4\nout 5(\nlate)?$/,
    );
    assert.equal(
      await dockerOk(["logs", "--since", "2099-01-01T00:00:00Z", name]),
      "",
    );
    assert.match(await dockerOk(["logs", "--since", "1h", name]), /^out 1\n/);
  });
});

test("logs -f shows what comes and ends with the container", async () => {
  const name = named("follow");
  await dockerOk([
    "run",
    "-d",
    "--name",
    name,
    busybox(),
    "sh",
    "-c",
    "echo first; sleep 2; echo second; sleep 1; echo third",
  ]);
  const follow = start(["logs", "-f", name]);
  await follow.stdoutMatches(/first\nsecond\n/);
  const { code, stdout } = await follow.result;
  assert.equal(code, 0);
  assert.equal(stdout, "first\nsecond\nthird\n");
});

test("a follower that does not read holds up neither the container nor the daemon", async () => {
  const name = named("stalled");
  await dockerOk([
    "run",
    "-d",
    "--name",
    name,
    busybox(),
    "sh",
    "-c",
    "yes $(seq 100) | head -c 3000000; echo; echo done; sleep 1000",
  ]);
  const stalled = start(["logs", "-f", name]);
  stalled.kill("SIGSTOP");
  try {
    const follow = start(["logs", "-f", "--tail", "5", name]);
    await follow.stdoutMatches(/done/);
    follow.kill("SIGKILL");
    assert.equal(await dockerOk(["exec", name, "echo", "alive"]), "alive");
  } finally {
    stalled.kill("SIGKILL");
  }
});

test("json-file rotation keeps the newest lines within max-size × max-file", async () => {
  const name = named("rotate");
  await dockerOk(
    [
      "run",
      "--name",
      name,
      "--log-opt",
      "max-size=20k",
      "--log-opt",
      "max-file=3",
      busybox(),
      "sh",
      "-c",
      "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line number $i; done",
    ],
    { timeout: 120_000 },
  );
  const lines = (await dockerOk(["logs", name])).split("\n");
  assert.equal(lines.at(-1), "line number 3000");
  assert.ok(lines.length < 3000 && lines.length > 100, String(lines.length));
  const first = Number(lines[0]?.split(" ").at(-1));
  assert.deepEqual(
    lines,
    Array.from(
      { length: 3001 - first },
      (_, at) => `line number ${first + at}`,
    ),
  );

  const { LogPath, HostConfig } = (await inspect(name)) as unknown as {
    LogPath: string;
    HostConfig: { LogConfig: unknown };
  };
  assert.deepEqual(HostConfig.LogConfig, {
    Type: "json-file",
    Config: { "max-file": "3", "max-size": "20k" },
  });
  assert.ok(existsSync(LogPath), LogPath);
  const files = readdirSync(path.dirname(LogPath)).filter((file) =>
    file.startsWith(path.basename(LogPath)),
  );
  assert.equal(files.length, 3);
  for (const file of files) {
    assert.ok(
      statSync(path.join(path.dirname(LogPath), file)).size <= 20 * 1024 + 200,
      file,
    );
  }
});

test("compressed files are read and followed like the others", async () => {
  const name = named("compress");
  await dockerOk([
    ...["run", "-d", "--name", name],
    ...["--log-opt", "max-size=20k", "--log-opt", "max-file=50"],
    ...["--log-opt", "compress=true"],
    busybox(),
    ...["sh", "-c", "for i in $(seq 2000); do echo line number $i; done"],
  ]);
  const expected = Array.from(
    { length: 2000 },
    (_, i) => `line number ${i + 1}`,
  );
  const followed = await dockerOk(["logs", "-f", name], { timeout: 120_000 });
  assert.deepEqual(followed.split("\n"), expected);

  const { LogPath } = (await inspect(name)) as unknown as { LogPath: string };
  const base = path.basename(LogPath);
  const rotated = await eventually(() => {
    const files = readdirSync(path.dirname(LogPath)).filter((file) =>
      file.startsWith(`${base}.`),
    );
    assert.ok(
      files.every((file) => file.endsWith(".gz")),
      files.join(" "),
    );
    return files;
  });
  assert.ok(rotated.length > 3, rotated.join(" "));
  const newest = readFileSync(path.join(path.dirname(LogPath), `${base}.1.gz`));
  assert.match(gunzipSync(newest).toString(), /^{"log":"line number \d+\\n"/);

  assert.deepEqual(
    (await dockerOk(["logs", "--tail", "1500", name])).split("\n"),
    expected.slice(-1500),
  );
  const stamped = (await dockerOk(["logs", "-t", name])).split("\n");
  assert.deepEqual(
    stamped.map((line) => line.slice(line.indexOf(" ") + 1)),
    expected,
  );
  const since = stamped[600]?.split(" ")[0] ?? "";
  assert.deepEqual(
    (await dockerOk(["logs", "--since", since, name])).split("\n"),
    // Lines that came in one piece have one time.
    expected.slice(stamped.findIndex((line) => line.startsWith(since))),
  );

  const refused = await docker([
    ...["create", "--log-opt", "compress=true", busybox()],
  ]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /compress cannot be true when max-file is less/);
});

test("log driver none has no logs to read", async () => {
  const name = named("no-logs");
  assert.equal(
    await dockerOk([
      "run",
      "--name",
      name,
      "--log-driver",
      "none",
      busybox(),
      "echo",
      "hello",
    ]),
    "hello",
  );
  const { code, stderr } = await docker(["logs", name]);
  assert.equal(code, 1);
  assert.match(stderr, /configured logging driver does not support reading/);
});

test("an unknown log driver or option is refused", async () => {
  const driver = await docker([
    "create",
    "--log-driver",
    "nonsense",
    busybox(),
  ]);
  assert.equal(driver.code, 1);
  assert.match(
    driver.stderr,
    /error looking up logging plugin nonsense: plugin "nonsense" not found/,
  );
  const option = await docker([
    "create",
    "--log-opt",
    "max-size=lots",
    busybox(),
  ]);
  assert.equal(option.code, 1);
  assert.match(option.stderr, /max-size|invalid size/);
});

test("logs of an unknown container", async () => {
  const { code, stderr } = await docker(["logs", "no-such-container"]);
  assert.equal(code, 1);
  assert.equal(
    stderr.trim(),
    "Error response from daemon: No such container: no-such-container",
  );
});
