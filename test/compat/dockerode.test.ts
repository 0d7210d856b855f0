import assert from "node:assert/strict";
import { once } from "node:events";
import { PassThrough, type Duplex } from "node:stream";
import { before, test } from "node:test";
import type Docker from "dockerode";
import { WebSocket } from "ws";
import { dockerode } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import { docker, dockerOk, ownContainers } from "./harness/docker.js";
import { busybox } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

const engine = dockerode();
const { named } = ownContainers();
before(() => dockerOk(["pull", "-q", busybox()]));

/** Splits a multiplexed stream; resolves at its end. */
async function demultiplex(
  stream: NodeJS.ReadableStream,
): Promise<{ stdout: string; stderr: string }> {
  const collected = { stdout: "", stderr: "" };
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  stdout.on("data", (chunk: Buffer) => (collected.stdout += chunk.toString()));
  stderr.on("data", (chunk: Buffer) => (collected.stderr += chunk.toString()));
  engine.modem.demuxStream(stream, stdout, stderr);
  await once(stream, "end");
  return collected;
}

test("create, attach with a hijacked connection, start, half-close, wait, remove", async () => {
  const container = await engine.createContainer({
    Image: busybox(),
    name: named("hijack"),
    Cmd: ["sh", "-c", "cat; echo error >&2; exit 11"],
    OpenStdin: true,
    StdinOnce: true,
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
  });
  const stream = await container.attach({
    stream: true,
    hijack: true,
    stdin: true,
    stdout: true,
    stderr: true,
  });
  const output = demultiplex(stream);
  await container.start();
  stream.write("one\n");
  stream.end("two\n");
  assert.deepEqual(await container.wait(), { StatusCode: 11 });
  assert.deepEqual(await output, { stdout: "one\ntwo\n", stderr: "error\n" });
  await container.remove();
  await assert.rejects(container.inspect(), {
    statusCode: 404,
    reason: "no such container",
  });
});

test("exec over a hijacked connection, and inspect of it", async () => {
  const container = await engine.createContainer({
    Image: busybox(),
    name: named("exec"),
    Cmd: ["sleep", "1000"],
  });
  await container.start();
  const exec = await container.exec({
    Cmd: ["sh", "-c", "cat; echo done >&2; exit 6"],
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
  });
  const stream: Duplex = await exec.start({ hijack: true, stdin: true });
  const output = demultiplex(stream);
  stream.end("input\n");
  assert.deepEqual(await output, { stdout: "input\n", stderr: "done\n" });
  const { ExitCode, Running } = await exec.inspect();
  assert.deepEqual({ ExitCode, Running }, { ExitCode: 6, Running: false });
  await container.remove({ force: true });
});

test("logs as one buffer and as a stream", async () => {
  const container = await engine.createContainer({
    Image: busybox(),
    name: named("logs"),
    Cmd: ["sh", "-c", "echo out; sleep 1; echo err >&2"],
  });
  await container.start();
  const follow = await container.logs({
    follow: true,
    stdout: true,
    stderr: true,
  });
  assert.deepEqual(await demultiplex(follow), {
    stdout: "out\n",
    stderr: "err\n",
  });
  const buffer = await container.logs({ stdout: true, stderr: false });
  assert.deepEqual(buffer, Buffer.from("\x01\0\0\0\0\0\0\x04out\n", "latin1"));
  await assert.rejects(
    container.logs({ stdout: false, stderr: false }),
    /you must choose at least one stream/i,
  );
});

test("a terminal's stream is raw, and can be resized", async () => {
  const container = await engine.createContainer({
    Image: busybox(),
    name: named("raw"),
    Cmd: ["sh"],
    Tty: true,
    OpenStdin: true,
    Env: ["PS1=> "],
  });
  const stream = await container.attach({
    stream: true,
    hijack: true,
    stdin: true,
    stdout: true,
    stderr: true,
  });
  let screen = "";
  stream.on("data", (chunk: Buffer) => (screen += chunk.toString()));
  await container.start();
  await container.resize({ h: 33, w: 99 });
  await eventually(() => assert.match(screen, /> /));
  stream.write("stty size\n");
  await eventually(() => assert.match(screen, /stty size\r\n33 99\r\n/));
  stream.write("exit 2\n");
  assert.deepEqual(await container.wait(), { StatusCode: 2 });
});

test("events arrive as they happen", async () => {
  const name = named("events");
  const stream = await engine.getEvents({ filters: { container: [name] } });
  const actions: string[] = [];
  stream.on("data", (chunk: Buffer) => {
    for (const line of chunk.toString().split("\n").filter(Boolean)) {
      actions.push((JSON.parse(line) as { Action: string }).Action);
    }
  });
  const container = await engine.createContainer({
    Image: busybox(),
    name,
    Cmd: ["true"],
  });
  await container.remove();
  await eventually(() => assert.deepEqual(actions, ["create", "destroy"]));
  (stream as NodeJS.ReadableStream & { destroy(): void }).destroy();
});

test("pull with progress, list, inspect, df, info", async () => {
  await docker(["rmi", "-f", "plain"]);
  const stream = await engine.pull(busybox());
  const progress = await new Promise<{ status?: string }[]>((resolve, reject) =>
    engine.modem.followProgress(
      stream,
      (error: Error | null, output: { status?: string }[]) =>
        error ? reject(error) : resolve(output),
    ),
  );
  assert.ok(
    progress.some((line) => line.status?.startsWith("Digest: sha256:")),
  );
  const images = await engine.listImages({
    filters: { reference: [busybox()] },
  });
  assert.equal(images.length, 1);
  assert.deepEqual(images[0]?.RepoTags?.includes(busybox()), true);
  const info = (await engine.info()) as { Containers: number };
  assert.equal(typeof info.Containers, "number");
  const listed: Docker.ContainerInfo[] = await engine.listContainers({
    all: true,
  });
  assert.ok(Array.isArray(listed));
});

test("attach over a WebSocket, both ways", async () => {
  const name = named("websocket");
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
  const socket = new WebSocket(
    `ws+unix://${Daemon.shared().socket}:/v1.47/containers/${name}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1`,
  );
  let received = "";
  socket.on("message", (data: Buffer) => (received += data.toString()));
  await once(socket, "open");
  socket.send("through a socket\n");
  await eventually(() => assert.equal(received, "got through a socket\n"));
  const closed = once(socket, "close");
  await dockerOk(["kill", name]);
  await closed;
});

test("a WebSocket to an unknown container is refused", async () => {
  const socket = new WebSocket(
    `ws+unix://${Daemon.shared().socket}:/containers/no-such-container/attach/ws?stream=1`,
  );
  const [error] = (await once(socket, "error")) as [Error];
  assert.match(error.message, /404/);
});
