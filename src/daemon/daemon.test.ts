import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { get } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";

const MAIN = path.join(import.meta.dirname, "main.ts");

interface Run {
  child: ChildProcess;
  /** All it wrote so far, standard output and error. */
  output(): string;
  /** Resolves when it says so, or rejects when it ends before. */
  says(text: string): Promise<void>;
  /** Resolves with the exit status. */
  ended: Promise<number | null>;
}

/** What ends the daemons of a directory: they write to it up to their end. */
const enders = new Map<string, (() => Promise<unknown>)[]>();

async function place(t: TestContext): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), "hulld-"));
  t.after(async () => {
    await Promise.all((enders.get(directory) ?? []).map((end) => end()));
    await rm(directory, { recursive: true });
  });
  return directory;
}

/** Runs hulld with its folders in `directory`. */
function hulld(directory: string, ...args: string[]): Run {
  const child = spawn(
    process.execPath,
    [
      ...["--import", "tsx", MAIN],
      ...["--data-root", path.join(directory, "data")],
      ...["--exec-root", path.join(directory, "x")],
      ...["--network-mode", "user", "--accel", "tcg", "--templates", "off"],
      ...args,
    ],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const ended = once(child, "close").then(
    ([status]) => status as number | null,
  );
  const end = () => {
    child.kill("SIGKILL");
    return ended;
  };
  enders.set(directory, [...(enders.get(directory) ?? []), end]);
  return {
    child,
    output: () => output,
    ended,
    async says(text) {
      while (!output.includes(text)) {
        const over = await Promise.race([
          once(child.stdout, "data").then(() => false),
          ended.then(() => true),
        ]);
        assert.ok(!over || output.includes(text), output);
      }
    },
  };
}

function ping(socketPath: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    get({ socketPath, path: "/_ping", agent: false }, (res) => {
      res.resume();
      resolve(res.statusCode);
    }).on("error", reject);
  });
}

test("the daemon serves on its socket and ends cleanly on SIGTERM", async (t) => {
  const directory = await place(t);
  const socket = path.join(directory, "h.sock");
  const pidfile = path.join(directory, "pid");
  const run = hulld(
    directory,
    ...["-H", `unix://${socket}`, "-p", pidfile],
    ...["--metrics-addr", "127.0.0.1:0"],
  );
  await run.says("hulld is ready");
  assert.equal(await ping(socket), 200);
  const [, metrics = ""] =
    /metrics at (http:\S+\/metrics)/.exec(run.output()) ?? [];
  const answer = await fetch(metrics);
  assert.match(await answer.text(), /^hull_containers\{state="running"\} 0$/m);
  const api = await fetch(metrics.replace("/metrics", "/_ping"));
  assert.equal(api.status, 404);
  assert.equal(statSync(socket).mode & 0o777, 0o660);
  assert.equal(readFileSync(pidfile, "utf8"), `${run.child.pid}\n`);
  run.child.kill("SIGTERM");
  assert.equal(await run.ended, 0);
  assert.ok(!existsSync(socket));
  assert.ok(!existsSync(pidfile));
});

test("a second daemon on the same data root is refused; after kill -9 it is not", async (t) => {
  const directory = await place(t);
  const socket = path.join(directory, "h.sock");
  const first = hulld(directory, "-H", `unix://${socket}`);
  await first.says("hulld is ready");
  const second = hulld(directory, "-H", `unix://${socket}2`);
  assert.equal(await second.ended, 1);
  assert.match(
    second.output(),
    new RegExp(`in use by another hulld \\(process ${first.child.pid}\\)`),
  );
  first.child.kill("SIGKILL");
  await first.ended;
  const third = hulld(directory, "-H", `unix://${socket}`);
  await third.says("hulld is ready");
  assert.equal(await ping(socket), 200);
});

test("a socket somebody listens on is left alone", async (t) => {
  const directory = await place(t);
  const socket = path.join(directory, "h.sock");
  const other = createServer().listen(socket);
  await once(other, "listening");
  t.after(() => other.close());
  const run = hulld(directory, "-H", `unix://${socket}`);
  assert.equal(await run.ended, 1);
  assert.match(run.output(), /another process listens on/);
  assert.ok(existsSync(socket));
});

test("a file in the socket's place is left alone", async (t) => {
  const directory = await place(t);
  const socket = path.join(directory, "h.sock");
  writeFileSync(socket, "mine");
  const run = hulld(directory, "-H", `unix://${socket}`);
  assert.equal(await run.ended, 1);
  assert.equal(readFileSync(socket, "utf8"), "mine");
});

test("plain TCP is refused unless it is asked for in words", async (t) => {
  const directory = await place(t);
  const refused = hulld(directory, "-H", "tcp://127.0.0.1:0");
  assert.equal(await refused.ended, 2);
  assert.match(refused.output(), /--unsafe-plain-tcp/);
  const run = hulld(
    directory,
    ...["-H", "tcp://127.0.0.1:0", "--unsafe-plain-tcp"],
  );
  await run.says("hulld is ready");
  assert.match(run.output(), /has no TLS/);
});

test("a wrong setting ends the daemon with status 2 and its name", async (t) => {
  const run = hulld(await place(t), "--memory", "none");
  assert.equal(await run.ended, 2);
  assert.equal(
    run.output(),
    "hulld: invalid value for --memory: expected a size such as 512m or 10g\n",
  );
});

test("--validate checks the configuration and starts nothing", async (t) => {
  const directory = await place(t);
  const run = hulld(directory, "--validate");
  assert.equal(await run.ended, 0);
  assert.equal(run.output(), "configuration OK\n");
  assert.ok(!existsSync(path.join(directory, "data")));
});
