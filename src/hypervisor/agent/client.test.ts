import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  Channel,
  decodeHeader,
  encodeHeader,
  END_BYTE,
  FrameType,
  HEADER_SIZE,
  MAX_MESSAGE,
  MAX_PAYLOAD,
  NONCE_SIZE,
  PROTOCOL_VERSION,
  streamOf,
  SYNC_MAGIC,
  SYNC_PADDING,
  WINDOW,
  type AgentEvent,
  type Hello,
  type ProcessState,
  type Spawn,
} from "../../../protocol/index.js";
import { Unavailable } from "../../errors.js";
import { AgentFailure } from "../agent-failure.js";
import type { OutputSink } from "../index.js";
import { SocketAgentClient } from "./client.js";

interface SeenFrame {
  type: number;
  stream: number;
  offset: number;
  payload: Buffer;
}

function frame(
  type: number,
  stream: number,
  offset: number,
  payload: Buffer | string = "",
): Buffer {
  const body = Buffer.from(payload);
  const bytes = Buffer.alloc(HEADER_SIZE + body.length + 1);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  encodeHeader(view, 0, body.length, type as FrameType, stream, offset);
  body.copy(bytes, HEADER_SIZE);
  bytes[bytes.length - 1] = END_BYTE;
  return bytes;
}

const json = (type: number, message: unknown) =>
  frame(type, 0, 0, JSON.stringify(message));

function hello(processes: ProcessState[] = []): Hello {
  return {
    protocol: PROTOCOL_VERSION,
    version: "test",
    kernel: "6.12",
    bootId: "b",
    uptimeMs: 5,
    ready: false,
    processes,
  };
}

const helloEvent = () =>
  json(FrameType.Event, { event: "hello", hello: hello() });

const stdout1 = streamOf(1, Channel.Stdout);
const stdin1 = streamOf(1, Channel.Stdin);

const spawnArgs: Spawn = {
  process: 1,
  args: ["true"],
  env: [],
  cwd: "/",
  user: "",
  groups: [],
  stdin: true,
  capabilities: [],
  noNewPrivileges: false,
  rlimits: [],
  oomScoreAdj: 0,
};

/** The guest's end: takes the host's bytes apart and answers as a test tells it to. */
class FakeAgent {
  readonly frames: SeenFrame[] = [];
  bytes = Buffer.alloc(0);
  parse = true;
  #waiters: (() => void)[] = [];

  constructor(readonly socket: net.Socket) {
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      this.bytes = Buffer.concat([this.bytes, chunk]);
      if (this.parse) this.#cut();
      for (const wake of this.#waiters.splice(0)) wake();
    });
  }

  #cut(): void {
    for (;;) {
      if (this.bytes.length < HEADER_SIZE) return;
      const view = new DataView(this.bytes.buffer, this.bytes.byteOffset);
      const { length, type, stream, offset } = decodeHeader(view, 0);
      const size = HEADER_SIZE + length + 1;
      if (this.bytes.length < size) return;
      assert.equal(this.bytes[size - 1], END_BYTE);
      const payload = this.bytes.subarray(HEADER_SIZE, size - 1);
      this.frames.push({ type, stream, offset, payload });
      this.bytes = this.bytes.subarray(size);
    }
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  async next(type: number): Promise<SeenFrame> {
    await this.until(() => this.frames.some((each) => each.type === type));
    const at = this.frames.findIndex((each) => each.type === type);
    return this.frames.splice(at, 1)[0] as SeenFrame;
  }

  async nextRequest(): Promise<{ id: number; op: string; args: unknown }> {
    const { payload } = await this.next(FrameType.Request);
    return JSON.parse(payload.toString()) as {
      id: number;
      op: string;
      args: unknown;
    };
  }

  send(...parts: Buffer[]): void {
    this.socket.write(Buffer.concat(parts));
  }
}

class CollectingSink implements OutputSink {
  chunks: Buffer[] = [];
  ended = false;
  end = 0;
  ack: (offset: number) => void = () => undefined;
  constructor(readonly acknowledges = true) {}
  data(chunk: Buffer, end: number, ack: (offset: number) => void): void {
    this.chunks.push(chunk);
    this.end = end;
    this.ack = ack;
    if (this.acknowledges) ack(end);
  }
  eof(): void {
    this.ended = true;
  }
  get text(): string {
    return Buffer.concat(this.chunks).toString();
  }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(1);
}

describe("agent client", { timeout: 20_000 }, () => {
  let directory: string;
  let server: net.Server;
  let accept: (socket: net.Socket) => void;
  const open: SocketAgentClient[] = [];

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), "hull-agent-client-"));
    server = net.createServer((socket) => accept(socket));
    await new Promise<void>((resolve) =>
      server.listen(join(directory, "s"), resolve),
    );
  });
  afterEach(() => open.splice(0).forEach((client) => client.close("test end")));
  after(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });

  async function connect(
    peer: "fresh" | "running" = "fresh",
  ): Promise<{ client: SocketAgentClient; agent: FakeAgent }> {
    const accepted = new Promise<net.Socket>((resolve) => (accept = resolve));
    const socket = net.connect(join(directory, "s"));
    const client = new SocketAgentClient(socket, peer);
    open.push(client);
    const agent = new FakeAgent(await accepted);
    return { client, agent };
  }

  async function running() {
    const pair = await connect();
    pair.agent.send(helloEvent());
    await pair.client.hello;
    const spawned = pair.client.request("spawn", spawnArgs);
    const { id } = await pair.agent.nextRequest();
    pair.agent.send(
      json(FrameType.Response, { id, ok: true, result: { pid: 7 } }),
    );
    await spawned;
    return pair;
  }

  async function closesWith(
    reason: RegExp,
    ...bytes: Buffer[]
  ): Promise<SocketAgentClient> {
    const { client, agent } = await running();
    agent.send(...bytes);
    assert.match(await client.closed, reason);
    return client;
  }

  test("a fresh guest's hello resolves, and nothing was written before", async () => {
    const { client, agent } = await connect();
    agent.send(helloEvent());
    assert.equal((await client.hello).version, "test");
    assert.equal(agent.bytes.length + agent.frames.length, 0);
  });

  test("answers are matched by id, in any order", async () => {
    const { client, agent } = await connect();
    agent.send(helloEvent());
    const first = client.request("hello", {});
    const second = client.request("spawn", spawnArgs);
    const a = await agent.nextRequest();
    const b = await agent.nextRequest();
    assert.deepEqual([a.op, b.op], ["hello", "spawn"]);
    agent.send(
      json(FrameType.Response, { id: b.id, ok: true, result: { pid: 9 } }),
      json(FrameType.Response, { id: a.id, ok: true, result: hello() }),
    );
    assert.deepEqual(await second, { pid: 9 });
    assert.equal((await first).kernel, "6.12");
  });

  test("a refusal is an AgentFailure with code and errno", async () => {
    const { client, agent } = await connect();
    agent.send(helloEvent());
    const spawned = client.request("spawn", spawnArgs);
    const { id } = await agent.nextRequest();
    const error = {
      code: "executable-not-found",
      message: "nope",
      errno: "ENOENT",
    };
    agent.send(json(FrameType.Response, { id, ok: false, error }));
    await assert.rejects(spawned, (failure: AgentFailure) => {
      assert(failure instanceof AgentFailure);
      assert.equal(failure.code, "executable-not-found");
      assert.equal(failure.errno, "ENOENT");
      return true;
    });
  });

  test("frames may arrive cut at any byte", async () => {
    const { client, agent } = await running();
    const sink = new CollectingSink();
    client.output(1, Channel.Stdout, sink);
    const events: AgentEvent[] = [];
    client.onEvent((event) => events.push(event));
    events.length = 0;
    const bytes = Buffer.concat([
      frame(FrameType.Data, stdout1, 0, "hello "),
      json(FrameType.Event, { event: "oom" }),
      frame(FrameType.Data, stdout1, 6, "world"),
      frame(FrameType.Eof, stdout1, 11),
    ]);
    agent.socket.setNoDelay(true);
    for (const byte of bytes) {
      agent.socket.write(Buffer.of(byte));
      await sleep(0);
    }
    await until(() => sink.ended);
    assert.equal(sink.text, "hello world");
    assert.deepEqual(events, [{ event: "oom" }]);
  });

  test("two pieces of a frame, cut at each place in turn", async () => {
    const { client, agent } = await running();
    const sink = new CollectingSink();
    client.output(1, Channel.Stdout, sink);
    const size = frame(FrameType.Data, stdout1, 0, "abc").length;
    for (let cut = 1; cut < size; cut += 1) {
      const at = (cut - 1) * 3;
      const bytes = frame(FrameType.Data, stdout1, at, "abc");
      agent.socket.write(bytes.subarray(0, cut));
      await sleep(1);
      agent.socket.write(bytes.subarray(cut));
      await until(() => sink.end === at + 3);
    }
    assert.equal(sink.text, "abc".repeat(size - 1));
  });

  test("a message longer than a frame is joined, and one to the agent is cut", async () => {
    const { client, agent } = await running();
    const message = "x".repeat(3 * MAX_PAYLOAD);
    const spawned = client.request("spawn", {
      ...spawnArgs,
      process: 2,
      env: [message],
    });
    let request = "";
    for (let last = false; !last;) {
      const part = await agent.next(FrameType.Request);
      request += part.payload.toString();
      last = part.stream === 0;
    }
    const { id, args } = JSON.parse(request) as { id: number; args: Spawn };
    assert.equal(args.env[0], message);
    const answer = Buffer.from(
      JSON.stringify({
        id,
        ok: false,
        error: { code: "system", message },
      }),
    );
    const half = MAX_PAYLOAD;
    agent.send(
      frame(FrameType.Response, 1, 0, answer.subarray(0, half)),
      helloLog("between"),
      frame(FrameType.Response, 1, 0, answer.subarray(half, 2 * half)),
      frame(FrameType.Response, 1, 0, answer.subarray(2 * half, 3 * half)),
      frame(FrameType.Response, 0, 0, answer.subarray(3 * half)),
    );
    await assert.rejects(spawned, AgentFailure);
  });

  test("a stalled sink stalls the window of its own stream only", async () => {
    const { client, agent } = await running();
    const stalled = new CollectingSink(false);
    const flowing = new CollectingSink();
    client.output(1, Channel.Stdout, stalled);
    client.output(1, Channel.Stderr, flowing);
    const block = Buffer.alloc(MAX_PAYLOAD, 0x61);
    const blocks = WINDOW / MAX_PAYLOAD;
    for (let i = 0; i < blocks; i += 1) {
      agent.send(frame(FrameType.Data, stdout1, i * MAX_PAYLOAD, block));
    }
    for (let i = 0; i < 3 * blocks; i += 1) {
      agent.send(frame(FrameType.Data, stdout1 + 1, i * MAX_PAYLOAD, block));
    }
    await until(() => flowing.end === 3 * WINDOW && stalled.end === WINDOW);
    await agent.until(() =>
      agent.frames.some(
        (each) => each.type === FrameType.Ack && each.offset === 3 * WINDOW,
      ),
    );
    assert(!agent.frames.some((each) => each.stream === stdout1));
    stalled.ack(WINDOW);
    await agent.until(() =>
      agent.frames.some(
        (each) => each.stream === stdout1 && each.offset === WINDOW,
      ),
    );
    agent.send(frame(FrameType.Data, stdout1, WINDOW, "more"));
    await until(() => stalled.end === WINDOW + 4);
  });

  test("stdin stops at the window and goes on with acknowledgements", async () => {
    const { client, agent } = await running();
    const input = client.input(1);
    let done = false;
    const write = input.write(Buffer.alloc(WINDOW + 10)).then(() => {
      done = true;
    });
    const sent = () =>
      agent.frames
        .filter((each) => each.type === FrameType.Data)
        .reduce((sum, each) => sum + each.payload.length, 0);
    await agent.until(() => sent() === WINDOW);
    await sleep(10);
    assert.equal(sent(), WINDOW);
    assert.equal(done, false);
    input.end();
    // Not for crumbs: the ten bytes go together.
    agent.send(frame(FrameType.Ack, stdin1, 4));
    await sleep(10);
    assert.equal(sent(), WINDOW);
    agent.send(frame(FrameType.Ack, stdin1, 10));
    const eof = await agent.next(FrameType.Eof);
    assert.deepEqual([eof.stream, eof.offset], [stdin1, WINDOW + 10]);
    await write;
  });

  test("a writer does not wait for a process that has ended", async () => {
    const { client, agent } = await running();
    const input = client.input(1);
    const write = input.write(Buffer.alloc(2 * WINDOW));
    const exit = { code: 0, signal: 0, oomKilled: false, at: 1 };
    agent.send(json(FrameType.Event, { event: "exit", process: 1, exit }));
    await write;
  });

  test("events that come before a listener are kept for it", async () => {
    const { client, agent } = await connect();
    agent.send(helloEvent(), helloLog("early"));
    await client.hello;
    await sleep(5);
    const events: AgentEvent[] = [];
    client.onEvent((event) => events.push(event));
    assert.deepEqual(
      events.map((each) => each.event),
      ["hello", "log"],
    );
  });

  describe("connecting to a machine that runs", () => {
    test("drops the stump, finds the answer, asks hello, tells offsets", async () => {
      const { client, agent } = await connect("running");
      agent.parse = false;
      const sink = new CollectingSink();
      client.output(1, Channel.Stdout, sink, 1000);
      const size = SYNC_PADDING + HEADER_SIZE + NONCE_SIZE + 1;
      await agent.until(() => agent.bytes.length >= size);
      assert.equal(agent.bytes.length, size);
      assert(agent.bytes.subarray(0, SYNC_PADDING).every((byte) => byte === 0));
      agent.bytes = agent.bytes.subarray(SYNC_PADDING);
      agent.parse = true;
      agent.socket.emit("data", Buffer.alloc(0));
      const { payload: nonce } = await agent.next(FrameType.Sync);
      // A stump, the magic with another nonce, and the true answer in two pieces.
      agent.send(
        frame(FrameType.Data, stdout1, 0, "lost").subarray(0, 22),
        Buffer.from(SYNC_MAGIC),
        Buffer.alloc(NONCE_SIZE, 1),
        Buffer.from(SYNC_MAGIC),
        nonce.subarray(0, 5),
      );
      await sleep(5);
      const state: ProcessState = {
        process: 1,
        pid: 7,
        stdout: { produced: 1004, ended: true },
        stderr: { produced: 0, ended: false },
        stdinReceived: 50,
      };
      agent.send(nonce.subarray(5), frame(FrameType.Ack, stdin1, 20));
      const { id, op } = await agent.nextRequest();
      assert.equal(op, "hello");
      const ack = await agent.next(FrameType.Ack);
      assert.deepEqual([ack.stream, ack.offset], [stdout1, 1000]);
      agent.send(
        json(FrameType.Response, { id, ok: true, result: hello([state]) }),
        frame(FrameType.Data, stdout1, 1000, "rest"),
        frame(FrameType.Eof, stdout1, 1004),
      );
      assert.deepEqual((await client.hello).processes, [state]);
      await until(() => sink.ended);
      assert.equal(sink.text, "rest");

      // Of stdin, 30 bytes are under way: the window has no room for the last whole piece.
      const write = client.input(1, 50).write(Buffer.alloc(WINDOW));
      await agent.until(
        () =>
          agent.frames
            .filter((each) => each.type === FrameType.Data)
            .reduce((sum, each) => sum + each.payload.length, 0) ===
          WINDOW - MAX_PAYLOAD,
      );
      const first = agent.frames.find((each) => each.type === FrameType.Data);
      assert.equal(first?.offset, 50);
      agent.send(frame(FrameType.Ack, stdin1, 50));
      await write;
    });

    test("an end that comes before the answer to hello is left to that answer", async () => {
      const { client, agent } = await connect("running");
      agent.parse = false;
      const size = SYNC_PADDING + HEADER_SIZE + NONCE_SIZE + 1;
      await agent.until(() => agent.bytes.length >= size);
      const nonce = agent.bytes.subarray(size - 1 - NONCE_SIZE, size - 1);
      agent.send(Buffer.from(SYNC_MAGIC), nonce, exitEvent(3));
      agent.bytes = agent.bytes.subarray(size);
      agent.parse = true;
      const { id } = await agent.nextRequest();
      const ended: ProcessState = {
        process: 3,
        pid: 9,
        exit: { code: 0, signal: 0, oomKilled: false, at: 1 },
        stdout: { produced: 0, ended: true },
        stderr: { produced: 0, ended: true },
        stdinReceived: 0,
      };
      agent.send(
        json(FrameType.Response, { id, ok: true, result: hello([ended]) }),
      );
      assert.deepEqual((await client.hello).processes, [ended]);
    });

    test("nothing but the opening is written before the answer", async () => {
      const { client, agent } = await connect("running");
      agent.parse = false;
      const pending = client.request("resize", {
        process: 1,
        rows: 1,
        columns: 1,
      });
      pending.catch(() => undefined);
      const size = SYNC_PADDING + HEADER_SIZE + NONCE_SIZE + 1;
      await agent.until(() => agent.bytes.length >= size);
      agent.send(Buffer.alloc(100_000, 7));
      await sleep(20);
      assert.equal(agent.bytes.length, size);
    });
  });

  describe("a guest that breaks the protocol loses its channel", () => {
    const broken: [string, RegExp, () => Buffer[]][] = [
      [
        "a length of 4 GiB",
        /claims 4294967295 bytes/,
        () => [Buffer.alloc(HEADER_SIZE, 0xff)],
      ],
      [
        "a wrong end byte",
        /does not end/,
        () => {
          const bytes = helloLog("x");
          bytes[bytes.length - 1] = 0;
          return [bytes];
        },
      ],
      ["an unknown type", /unknown type 99/, () => [frame(99, 0, 0)]],
      [
        "a frame only the host sends",
        /unknown type 2/,
        () => [json(FrameType.Request, {})],
      ],
      [
        "data of a stream nobody opened",
        /stream 401/,
        () => [frame(FrameType.Data, 401, 0, "x")],
      ],
      [
        "an answer nobody waits for",
        /request 77/,
        () => [json(FrameType.Response, { id: 77, ok: true, result: {} })],
      ],
      [
        "no JSON",
        /not JSON/,
        () => [frame(FrameType.Event, 0, 0, "{".repeat(60_000))],
      ],
      [
        "an event of an unknown kind",
        /an event is malformed/,
        () => [json(FrameType.Event, { event: "party" })],
      ],
      [
        "an exit code out of range",
        /exit.code/,
        () => [
          json(FrameType.Event, {
            event: "exit",
            process: 1,
            exit: { code: 256, signal: 0, oomKilled: false, at: 1 },
          }),
        ],
      ],
      [
        "the exit of a process that was never started",
        /unknown process 12/,
        () => [
          json(FrameType.Event, {
            event: "exit",
            process: 12,
            exit: { code: 0, signal: 0, oomKilled: false, at: 1 },
          }),
        ],
      ],
      [
        "an exit that is told twice",
        /process 1 exits twice/,
        () => [exitEvent(1), exitEvent(1)],
      ],
      [
        "an exit at a time that no calendar has",
        /exit.at/,
        () => [exitEvent(1, 1e300)],
      ],
      [
        "an endless message",
        /longer than/,
        () =>
          Array.from({ length: MAX_MESSAGE / MAX_PAYLOAD + 1 }, () =>
            frame(FrameType.Event, 1, 0, Buffer.alloc(MAX_PAYLOAD)),
          ),
      ],
      [
        "an ack for an output stream",
        /ack of stream 5/,
        () => [frame(FrameType.Ack, stdout1, 0)],
      ],
    ];
    for (const [name, reason, bytes] of broken) {
      test(name, async () => {
        const client = await closesWith(reason, ...bytes());
        await assert.rejects(client.request("hello", {}), Unavailable);
      });
    }

    test("gaps, repeats and data beyond the window", async () => {
      for (const bad of [
        frame(FrameType.Data, stdout1, 5, "x"),
        frame(FrameType.Data, stdout1, 2 ** 53, "x"),
        frame(FrameType.Eof, stdout1, 1),
        Buffer.concat([
          frame(FrameType.Eof, stdout1, 0),
          frame(FrameType.Data, stdout1, 0, "x"),
        ]),
        Buffer.concat(
          [0, 1, 2, 3, 4].map((i) =>
            frame(
              FrameType.Data,
              stdout1,
              i * MAX_PAYLOAD,
              Buffer.alloc(MAX_PAYLOAD),
            ),
          ),
        ),
      ]) {
        const { client, agent } = await running();
        client.output(1, Channel.Stdout, new CollectingSink(false));
        agent.send(bad);
        assert.match(await client.closed, /stream/);
      }
    });

    test("stdin acknowledged that was never sent", async () => {
      const { client, agent } = await running();
      const input = client.input(1);
      agent.send(frame(FrameType.Ack, stdin1, 1));
      assert.match(await client.closed, /were sent/);
      await assert.rejects(input.write(Buffer.of(1)), Unavailable);
    });

    test("another version of the protocol", async () => {
      const { client, agent } = await connect();
      agent.send(
        json(FrameType.Event, {
          event: "hello",
          hello: { ...hello(), protocol: 999 },
        }),
      );
      await assert.rejects(client.hello, /version 999/);
    });
  });

  test("requests and hello fail when the machine goes away", async () => {
    const { client, agent } = await connect();
    const pending = client.request("hello", {});
    agent.socket.destroy();
    await assert.rejects(pending, Unavailable);
    await assert.rejects(client.hello, Unavailable);
    assert.match(await client.closed, /gone/);
  });

  test("a receiver that throws closes the channel, not the daemon", async () => {
    const { client, agent } = await running();
    client.onEvent((event) => {
      if (event.event === "oom") throw new Error("bug in a listener");
    });
    agent.send(json(FrameType.Event, { event: "oom" }));
    assert.match(await client.closed, /bug in a listener/);
  });

  test("acknowledgements wait while the guest does not read, and stay few", async () => {
    const { client, agent } = await running();
    client.output(1, Channel.Stdout, new CollectingSink());
    agent.socket.pause();
    const filler = client.input(1);
    filler.write(Buffer.alloc(WINDOW)).catch(() => undefined);
    let offset = 0;
    for (let i = 0; i < 2000; i += 1) {
      agent.socket.write(frame(FrameType.Data, stdout1, offset, "x"));
      offset += 1;
      if (i % 100 === 0) await sleep(0);
    }
    await sleep(20);
    agent.socket.resume();
    await agent.until(() =>
      agent.frames.some(
        (each) => each.type === FrameType.Ack && each.offset === offset,
      ),
    );
  });
});

function exitEvent(process: number, at = 1): Buffer {
  const exit = { code: 0, signal: 0, oomKilled: false, at };
  return json(FrameType.Event, { event: "exit", process, exit });
}

function helloLog(message: string): Buffer {
  return json(FrameType.Event, { event: "log", level: "info", message });
}
