import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import Docker from "dockerode";
import { z } from "zod";
import { WebSocket } from "ws";
import { NotFound } from "../errors.js";
import { readJson } from "./body.js";
import type { ApiRouter } from "./context.js";
import { hijack, type AttachedClient } from "./hijack.js";
import { frame, StreamKind } from "./raw-stream.js";
import { readAll, serve } from "./test-server.js";
import { acceptWebSocket } from "./websocket.js";

/** `cat` as a server: answers on stdout what comes on stdin, and ends when that ends. */
async function cat(client: AttachedClient): Promise<void> {
  for await (const chunk of client.stdin) {
    await client.stdout(chunk as Buffer);
  }
  await sleep(20);
  await client.stdout(Buffer.from("bye\n"));
  client.end();
}

function routes(router: ApiRouter): void {
  router.post("/cat", async (ctx) => {
    await cat(await hijack(ctx, { multiplexed: false, stdin: true }));
  });
  router.post("/framed", async (ctx) => {
    await cat(await hijack(ctx, { multiplexed: true, stdin: true }));
  });
  router.post("/body", async (ctx) => {
    const body = await readJson(ctx, z.object({ word: z.string() }));
    const client = await hijack(ctx, { multiplexed: false, stdin: true });
    await client.stdout(Buffer.from(body.word));
    await cat(client);
  });
  router.post("/late", async (ctx) => {
    await sleep(50);
    await cat(await hijack(ctx, { multiplexed: false, stdin: true }));
  });
  router.post("/refuses", () => {
    throw new NotFound("No such container: x");
  });
  router.get("/ws", async (ctx) => {
    await cat(await acceptWebSocket(ctx));
  });
}

const UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
const head = (path: string, extra = UPGRADE) =>
  `POST ${path} HTTP/1.1\r\nHost: x\r\n${extra}\r\n`;

/** The answer's head and the bytes behind it. */
function split(answer: Buffer): [string, Buffer] {
  const end = answer.indexOf("\r\n\r\n");
  return [answer.toString("latin1", 0, end), answer.subarray(end + 4)];
}

test("an upgraded connection still carries output after the client's half-close", async (t) => {
  const socket = (await serve(t, routes)).connect();
  socket.write(head("/cat"));
  await once(socket, "readable");
  socket.end("hi\n");
  const [answer, bytes] = split(await readAll(socket));
  assert.match(answer, /^HTTP\/1\.1 101 UPGRADED\r\n/);
  assert.match(answer, /\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n/);
  assert.match(
    answer,
    /\r\nContent-Type: application\/vnd\.docker\.raw-stream\r\n/,
  );
  assert.match(answer, /\r\nApi-Version: 1\.51\r\n/);
  assert.equal(bytes.toString(), "hi\nbye\n");
});

test("stdin sent along with the request's head is not lost", async (t) => {
  const socket = (await serve(t, routes)).connect();
  socket.end(head("/late") + "early\n");
  const [, bytes] = split(await readAll(socket));
  assert.equal(bytes.toString(), "early\nbye\n");
});

test("a request body is told apart from the stdin behind it", async (t) => {
  const socket = (await serve(t, routes)).connect();
  const body = '{"word":"said "}';
  socket.write(
    head(
      "/body",
      `${UPGRADE}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n`,
    ) + body.slice(0, 5),
  );
  await sleep(10);
  socket.end(body.slice(5) + "hi\n");
  const [, bytes] = split(await readAll(socket));
  assert.equal(bytes.toString(), "said hi\nbye\n");
});

test("a body the handler does not want is not taken for stdin", async (t) => {
  const socket = (await serve(t, routes)).connect();
  socket.end(head("/cat", `${UPGRADE}Content-Length: 2\r\n`) + "{}hi\n");
  const [, bytes] = split(await readAll(socket));
  assert.equal(bytes.toString(), "hi\nbye\n");
});

test("without Upgrade the answer is 200 and raw bytes, half-close included", async (t) => {
  const socket = (await serve(t, routes)).connect();
  socket.write(head("/cat", "Content-Length: 0\r\n"));
  await once(socket, "readable");
  socket.write("one\n");
  await sleep(20);
  socket.end("two\n");
  const [answer, bytes] = split(await readAll(socket));
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
  assert.doesNotMatch(answer, /Transfer-Encoding|Upgrade/);
  assert.equal(bytes.toString(), "one\ntwo\nbye\n");
});

test("without Upgrade a body is dropped before stdin begins", async (t) => {
  const socket = (await serve(t, routes)).connect();
  socket.write(head("/cat", "Content-Length: 2\r\n") + "{}");
  await once(socket, "readable");
  socket.end("hi\n");
  const [, bytes] = split(await readAll(socket));
  assert.equal(bytes.toString(), "hi\nbye\n");
});

test("from version 1.42 framed output has its own media type", async (t) => {
  const server = await serve(t, routes);
  for (const [version, media] of [
    ["1.41", "raw-stream"],
    ["1.42", "multiplexed-stream"],
  ]) {
    const socket = server.connect();
    socket.end(head(`/v${version}/framed`) + "hi\n");
    const [answer, bytes] = split(await readAll(socket));
    assert.ok(answer.includes(`application/vnd.docker.${media}\r\n`), answer);
    assert.deepEqual(
      bytes,
      Buffer.concat([
        frame(StreamKind.Stdout, Buffer.from("hi\n")),
        frame(StreamKind.Stdout, Buffer.from("bye\n")),
      ]),
    );
  }
});

test("a refused upgrade is an ordinary answer and the connection ends", async (t) => {
  const socket = (await serve(t, routes)).connect();
  socket.write(head("/refuses"));
  const [answer, bytes] = split(await readAll(socket));
  assert.match(answer, /^HTTP\/1\.1 404 Not Found\r\n/);
  assert.equal(bytes.toString(), '{"message":"No such container: x"}\n');
  socket.end();
});

test("a client that does not read holds back its writer only", async (t) => {
  let written = 0;
  let gone = false;
  const server = await serve(t, (router) => {
    router.post("/flood", async (ctx) => {
      const client = await hijack(ctx, { multiplexed: true, stdin: false });
      const chunk = Buffer.alloc(64 * 1024);
      while (await client.stdout(chunk)) written += chunk.length;
      gone = true;
    });
    routes(router);
  });
  const socket = server.connect();
  socket.pause();
  socket.write(head("/flood"));
  await sleep(100);
  const held = written;
  await sleep(100);
  assert.equal(written, held);
  assert.ok(held < 4 * 1024 * 1024, String(held));
  const other = server.connect();
  other.end(head("/cat") + "hi\n");
  const [, bytes] = split(await readAll(other));
  assert.equal(bytes.toString(), "hi\nbye\n");
  socket.destroy();
  await sleep(50);
  assert.ok(gone);
});

test("closed resolves when the client goes away", async (t) => {
  let client: AttachedClient | undefined;
  const server = await serve(t, (router) => {
    router.post("/wait", async (ctx) => {
      client = await hijack(ctx, { multiplexed: false, stdin: true });
    });
  });
  const socket = server.connect();
  socket.write(head("/wait"));
  await once(socket, "readable");
  assert.ok(client);
  assert.equal(client.signal.aborted, false);
  socket.destroy();
  client.stdin.resume();
  await once(client.stdin, "end");
  while (await client.stdout(Buffer.from("x"))) await sleep(1);
  await client.closed;
  assert.equal(client.signal.aborted, true);
});

test("dockerode attaches, with and without an upgrade", async (t) => {
  const server = await serve(t, (router) => {
    router.post("/containers/:id/attach", async (ctx) => {
      await cat(await hijack(ctx, { multiplexed: false, stdin: true }));
    });
  });
  const docker = new Docker({ socketPath: server.path });
  for (const upgrade of [true, false]) {
    const stream = await docker.getContainer("x").attach({
      stream: true,
      stdin: true,
      stdout: true,
      hijack: upgrade,
    });
    let output = "";
    stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
    stream.write("one\n");
    await sleep(30);
    stream.write("two\n");
    await sleep(30);
    assert.equal(output, "one\ntwo\n");
    stream.end();
  }
});

test("a WebSocket carries binary frames both ways", async (t) => {
  const server = await serve(t, routes);
  const webSocket = new WebSocket(`ws+unix://${server.path}:/v1.51/ws`);
  const received: Buffer[] = [];
  webSocket.on("message", (data: Buffer, binary) => {
    assert.ok(binary);
    received.push(data);
  });
  await once(webSocket, "open");
  webSocket.send("hi\n");
  await sleep(50);
  assert.equal(Buffer.concat(received).toString(), "hi\n");
  webSocket.close();
  await once(webSocket, "close");
});

test("the WebSocket endpoint refuses an ordinary request", async (t) => {
  const answer = await (await serve(t, routes)).request("GET", "/ws");
  assert.equal(answer.status, 400);
});
