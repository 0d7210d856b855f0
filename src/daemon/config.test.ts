import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { ConfigError, readInvocation } from "./config.js";
import { parseHost } from "./hosts.js";
import { FLAGS, Settings } from "./settings.js";
import { parseSize } from "./sizes.js";
import { activatedSockets } from "./socket-activation.js";

/** Root without a config file, unless the flags name one. */
function read(...argv: string[]) {
  return readInvocation(argv, "0.1.0", {}, 0);
}

function file(t: TestContext, content: string): string {
  const directory = mkdtempSync(path.join(tmpdir(), "hull-config-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const name = path.join(directory, "hulld.json");
  writeFileSync(name, content);
  return name;
}

test("every setting has exactly one flag, but for those that are no text", () => {
  assert.deepEqual(
    [...FLAGS.map(({ setting }) => setting), "kernels"].sort(),
    Object.keys(Settings.shape).sort(),
  );
});

test("without flags and file the defaults hold", () => {
  const { config } = read();
  assert.equal(config["data-root"], "/var/lib/hull");
  assert.deepEqual(config.hosts, ["unix:///run/hull.sock"]);
  assert.equal(config.memory, 512 * 1024 ** 2);
  assert.equal(config["disk-size"], 10 * 1024 ** 3);
  assert.equal(config.accel, "auto");
});

test("a user who is not root gets folders of their own", () => {
  const env = { HOME: "/home/u", XDG_RUNTIME_DIR: "/run/user/1000" };
  const { config } = readInvocation([], "0.1.0", env, 1000);
  assert.equal(config["data-root"], "/home/u/.local/share/hull");
  assert.equal(config["exec-root"], "/run/user/1000/hull");
  assert.deepEqual(config.hosts, ["unix:///run/user/1000/hull.sock"]);
});

test("flags are read, lists are collected", () => {
  const { config } = read(
    ...["-H", "unix:///a", "--host", "tcp://b:1", "--memory", "1g"],
    ...["--cpus", "2", "-D", "--dns", "9.9.9.9", "--dns-opt", "ndots:1"],
  );
  assert.deepEqual(config.hosts, ["unix:///a", "tcp://b:1"]);
  assert.equal(config.memory, 1024 ** 3);
  assert.equal(config.cpus, 2);
  assert.equal(config.debug, true);
  assert.deepEqual(config.dns, ["9.9.9.9"]);
  assert.deepEqual(config["dns-opts"], ["ndots:1"]);
});

test("the file gives what the flags do not", (t) => {
  const name = file(t, '{"memory":"256m","cpus":2,"labels":["a=b"]}');
  const { config, configFile } = read("--config-file", name, "--debug");
  assert.equal(configFile, name);
  assert.equal(config.memory, 256 * 1024 ** 2);
  assert.equal(config.cpus, 2);
  assert.deepEqual(config.labels, ["a=b"]);
  assert.equal(config.debug, true);
});

test("a setting in both places is refused", (t) => {
  const name = file(t, '{"hosts":["unix:///a"]}');
  assert.throws(
    () => read("--config-file", name, "-H", "unix:///b"),
    new ConfigError(
      `unable to configure the daemon with file ${name}: the following directives are specified both as a flag and in the configuration file: hosts: (from flag: [unix:///b], from file: [unix:///a])`,
    ),
  );
});

const WRONG_FILES: [string, RegExp][] = [
  ["{", /is not JSON/],
  ["[]", /expected object, received array/],
  [
    '{"memroy":"1g"}',
    /the following directives don't match any configuration option: memroy$/,
  ],
  ['{"memory":"much"}', /invalid value for "memory": expected a size/],
  ['{"memory":"1m"}', /invalid value for "memory": must be at least 64m/],
  ['{"hosts":"unix:///a"}', /invalid value for "hosts": expected array/],
  ['{"hosts":[]}', /the daemon has to listen somewhere/],
  ['{"accel":"xen"}', /invalid value for "accel": expected one of/],
  ['{"cpus":1.5}', /invalid value for "cpus": expected int/],
  ['{"labels":["a"]}', /invalid value for "labels": expected KEY=VALUE/],
  ['{"debug":"yes"}', /invalid value for "debug": expected boolean/],
];
for (const [content, message] of WRONG_FILES) {
  test(`the config file ${content} is refused by name`, (t) => {
    const name = file(t, content);
    assert.throws(
      () => read("--config-file", name),
      (error) => error instanceof ConfigError && message.test(error.message),
    );
  });
}

test("names and parameters of other kernels are checked", () => {
  for (const [kernels, words] of [
    [{ "../x": { path: "/x" } }, /invalid value for "kernels"/],
    [{ x: { path: "x" } }, /expected an absolute path/],
    [{ x: { path: "/x", parameters: "a -- b" } }, /-- ends a kernel's/],
    [{ x: { path: "/x", parameters: "a\nb" } }, /1024 ASCII characters/],
  ] as const) {
    const parsed = Settings.safeParse({ kernels });
    assert.equal(parsed.success, false, JSON.stringify(kernels));
    if (!parsed.error?.issues[0]?.path.includes("../x")) {
      assert.match(parsed.error?.message ?? "", words);
    }
  }
  const fine = { kernels: { mine: { path: "/x" } } };
  assert.equal(Settings.parse(fine).kernels?.["mine"]?.parameters, "");
});

test("an empty config file says nothing; a missing one that was named is an error", (t) => {
  assert.equal(read("--config-file", file(t, "\n")).config.cpus, 1);
  assert.throws(
    () => read("--config-file", "/nowhere/hulld.json"),
    /cannot read the config file \/nowhere\/hulld\.json/,
  );
});

test("a wrong flag is refused by its name", () => {
  assert.throws(
    () => read("--disk-size", "huge"),
    new ConfigError(
      "invalid value for --disk-size: expected a size such as 512m or 10g",
    ),
  );
  assert.throws(
    () => read("--tlsverify", "--tlscacert", "/ca"),
    new ConfigError("--tlsverify needs --tlscert"),
  );
});

test("sizes count in powers of 1024", () => {
  for (const [text, bytes] of [
    ["0", 0],
    ["512", 512],
    ["1k", 1024],
    ["1.5K", 1536],
    ["512m", 512 * 1024 ** 2],
    ["512MB", 512 * 1024 ** 2],
    ["10GiB", 10 * 1024 ** 3],
    ["1t", 1024 ** 4],
    ["", undefined],
    ["-1m", undefined],
    ["m", undefined],
    ["1x", undefined],
    ["1e9", undefined],
    ["99999999t", undefined],
  ] as const) {
    assert.equal(parseSize(text), bytes, text);
  }
});

test("hosts are read as Docker's daemon reads them", () => {
  const unix = { kind: "unix", path: "/run/a.sock" };
  assert.deepEqual(parseHost("unix:///run/a.sock", false), unix);
  assert.deepEqual(parseHost("/run/a.sock", false), unix);
  for (const [text, host, port] of [
    ["tcp://0.0.0.0:80", "0.0.0.0", 80],
    ["tcp://", "127.0.0.1", 2375],
    ["tcp://:5000", "127.0.0.1", 5000],
    ["tcp://[::1]:5000", "::1", 5000],
    ["tcp://name", "name", 2375],
  ] as const) {
    assert.deepEqual(parseHost(text, false), { kind: "tcp", host, port });
  }
  assert.deepEqual(parseHost("tcp://name", true), {
    kind: "tcp",
    host: "name",
    port: 2376,
  });
  assert.deepEqual(parseHost("fd://", false), {
    kind: "fd",
    descriptor: undefined,
  });
  assert.deepEqual(parseHost("fd://4", false), { kind: "fd", descriptor: 4 });
  for (const text of [
    "",
    "run.sock",
    "unix://run.sock",
    "http://a:1",
    "tcp://a:99999",
    "tcp://a:b",
    "tcp://a/b",
    "fd://x",
  ]) {
    assert.throws(() => parseHost(text, false), ConfigError, text);
  }
});

test("sockets of systemd are those meant for this process", () => {
  const env = { LISTEN_PID: "7", LISTEN_FDS: "2" };
  assert.deepEqual(activatedSockets(undefined, env, 7), [3, 4]);
  assert.deepEqual(activatedSockets(4, env, 7), [4]);
  assert.throws(() => activatedSockets(5, env, 7), ConfigError);
  assert.throws(() => activatedSockets(undefined, env, 8), ConfigError);
  assert.throws(() => activatedSockets(undefined, {}, 7), ConfigError);
});

test("trace names a container and whom to ask", (t) => {
  assert.equal(read().trace, undefined);
  assert.deepEqual(read("trace", "web").trace, {
    container: "web",
    host: "unix:///run/hull.sock",
  });
  const config = file(t, '{"hosts": ["unix:///file"]}');
  const ask = (env: NodeJS.ProcessEnv, ...more: string[]) =>
    readInvocation(
      ["trace", "web", "--config-file", config, ...more],
      "0.1.0",
      env,
      0,
    ).trace?.host;
  assert.equal(ask({}), "unix:///file");
  assert.equal(ask({ DOCKER_HOST: "unix:///env" }), "unix:///env");
  assert.equal(ask({ DOCKER_HOST: "unix:///env" }, "-H", "/flag"), "/flag");
});
