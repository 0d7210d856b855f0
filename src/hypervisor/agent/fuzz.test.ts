/** A hostile guest at the agent's socket: whatever it writes, its channel closes and nothing else does. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import {
  Channel,
  encodeHeader,
  END_BYTE,
  FrameType,
  HEADER_SIZE,
  MAX_PAYLOAD,
  PROTOCOL_VERSION,
  streamOf,
} from "../../../protocol/index.js";
import { SocketAgentClient } from "./client.js";
import { FloodGuard } from "./flood-guard.js";

const SEED = 5;
const MiB = 1024 * 1024;

function frame(
  type: number,
  stream: number,
  offset: number,
  payload: Buffer,
  length = payload.length,
): Buffer {
  const bytes = Buffer.alloc(HEADER_SIZE + payload.length + 1);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  encodeHeader(view, 0, length, type as FrameType, stream, offset);
  payload.copy(bytes, HEADER_SIZE);
  bytes[bytes.length - 1] = END_BYTE;
  return bytes;
}

function event(value: unknown): Buffer {
  return frame(FrameType.Event, 0, 0, Buffer.from(JSON.stringify(value)));
}

function helloEvent(processes: unknown[] = []): Buffer {
  return event({
    event: "hello",
    hello: {
      protocol: PROTOCOL_VERSION,
      version: "x",
      kernel: "x",
      bootId: "x",
      uptimeMs: 1,
      ready: true,
      processes,
    },
  });
}

/** Frames as a guest may think them up: of every type, with right and wrong numbers, and plain noise. */
const anyFrame = fc.oneof(
  fc
    .record({
      type: fc.integer({ min: 0, max: 9 }),
      stream: fc.oneof(fc.nat(9), fc.nat(2 ** 32 - 1)),
      offset: fc.oneof(fc.nat(300_000), fc.constant(2 ** 53)),
      payload: fc.uint8Array({ maxLength: 200 }),
    })
    .map(({ type, stream, offset, payload }) =>
      frame(type, stream, offset, Buffer.from(payload)),
    ),
  fc
    .record({
      type: fc.constantFrom(FrameType.Event, FrameType.Response),
      more: fc.nat(1),
      json: fc.json({ maxDepth: 8 }),
    })
    .map(({ type, more, json }) => frame(type, more, 0, Buffer.from(json))),
  fc
    .record({
      event: fc.constantFrom("exit", "oom", "log", "hello"),
      process: fc.oneof(fc.constant(1), fc.integer()),
      level: fc.constantFrom("info", "error", "none"),
      message: fc.string(),
      exit: fc.record({
        code: fc.integer({ min: -1, max: 300 }),
        signal: fc.nat(70),
        oomKilled: fc.boolean(),
        at: fc.oneof(fc.double(), fc.nat()),
      }),
    })
    .map(event),
  fc
    .record({ length: fc.nat(2 ** 32 - 1), type: fc.nat(6) })
    .map(({ length, type }) => frame(type, 0, 0, Buffer.alloc(8), length)),
  fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)),
);

describe("a hostile guest", { timeout: 120_000 }, () => {
  let directory: string;
  let server: net.Server;
  let accept: (socket: net.Socket) => void = () => undefined;
  const strays: unknown[] = [];
  const stray = (error: unknown) => strays.push(error);

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), "hull-fuzz-"));
    server = net.createServer((socket) => accept(socket));
    server.listen(join(directory, "s"));
    await once(server, "listening");
    process.on("unhandledRejection", stray);
  });
  after(() => {
    process.off("unhandledRejection", stray);
    server.close();
    rmSync(directory, { recursive: true });
  });

  async function connect(peer: "fresh" | "running") {
    const accepted = new Promise<net.Socket>((resolve) => (accept = resolve));
    const client = new SocketAgentClient(
      net.connect(join(directory, "s")),
      peer,
    );
    const guest = await accepted;
    guest.on("error", () => undefined);
    guest.resume();
    return { client, guest };
  }

  for (const peer of ["fresh", "running"] as const) {
    test(`that writes anything at all loses its channel (${peer})`, async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(anyFrame, { maxLength: 20 }),
          fc.boolean(),
          async (frames, polite) => {
            const { client, guest } = await connect(peer);
            client.onEvent((event) => {
              // What a daemon does with it must not throw.
              if (event.event === "exit") new Date(event.exit.at).toISOString();
            });
            client.request("hello", {}).catch(() => undefined);
            client.output(1, Channel.Stdout, {
              data: (_chunk, end, ack) => ack(end),
              eof: () => undefined,
            });
            client
              .input(1)
              .write(Buffer.from("x"))
              .catch(() => undefined);
            if (polite) {
              guest.write(
                helloEvent([
                  {
                    process: 1,
                    pid: 1,
                    stdout: { produced: 0, ended: false },
                    stderr: { produced: 0, ended: false },
                    stdinReceived: 0,
                  },
                ]),
              );
            }
            guest.end(Buffer.concat(frames));
            const reason = await client.closed;
            assert.match(reason, /gone|broke the protocol/);
          },
        ),
        { seed: SEED, numRuns: 300 },
      );
      assert.deepEqual(strays, []);
    });
  }

  /** Writes as long as the host takes it. @returns bytes written, and how far the memory grew */
  async function flood(
    bytes: Buffer,
    peer: "fresh" | "running",
    limit: number,
  ) {
    const { client, guest } = await connect(peer);
    const before = process.memoryUsage();
    let written = 0;
    let most = 0;
    let open = true;
    void client.closed.then(() => (open = false));
    while (open && written < limit) {
      written += bytes.length;
      if (!guest.write(bytes)) {
        await Promise.race([once(guest, "drain"), client.closed, sleep(1000)]);
      }
      const { heapUsed, arrayBuffers } = process.memoryUsage();
      most = Math.max(
        most,
        heapUsed - before.heapUsed + arrayBuffers - before.arrayBuffers,
      );
    }
    client.close("over");
    guest.destroy();
    return { written, most, reason: await client.closed };
  }

  const floods: [string, Buffer][] = [
    ["log lines", event({ event: "log", level: "info", message: "x" })],
    [
      "long log lines",
      event({ event: "log", level: "info", message: "x".repeat(60_000) }),
    ],
    ["deep JSON", frame(FrameType.Event, 0, 0, Buffer.alloc(MAX_PAYLOAD, "["))],
    ["out-of-memory reports", event({ event: "oom" })],
    [
      "pieces of a message without end",
      frame(FrameType.Event, 1, 0, Buffer.alloc(MAX_PAYLOAD, " ")),
    ],
    [
      "pieces of an answer without end",
      frame(FrameType.Response, 1, 0, Buffer.alloc(MAX_PAYLOAD, " ")),
    ],
    ["answers to nothing", frame(FrameType.Response, 0, 0, Buffer.from("{}"))],
    ["acks", frame(FrameType.Ack, streamOf(7, Channel.Stdout), 9, Buffer.of())],
  ];
  for (const [what, one] of floods) {
    test(`that floods the host with ${what} is cut off in bounded memory`, async () => {
      const many = Buffer.concat(
        Array.from({ length: Math.ceil((256 * 1024) / one.length) }, () => one),
      );
      const { written, most, reason } = await flood(many, "fresh", 256 * MiB);
      assert.match(reason, /broke the protocol/);
      assert.ok(written < 64 * MiB, `took ${written} bytes`);
      assert.ok(most < 64 * MiB, `memory grew by ${most} bytes`);
    });
  }

  test("that never answers a Sync costs no memory, however much it writes", async () => {
    const noise = Buffer.alloc(256 * 1024, 0xff);
    const { most } = await flood(noise, "running", 128 * MiB);
    assert.ok(most < 64 * MiB, `memory grew by ${most} bytes`);
  });

  test("that is no more than talkative keeps its channel", () => {
    let now = 0;
    const guard = new FloodGuard(() => now);
    for (let second = 0; second < 600; second++) {
      now += 1000;
      guard.count(100_000);
    }
    assert.throws(() => guard.count(9 * MiB), /flood/);
  });
});
