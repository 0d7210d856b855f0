import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  END_BYTE,
  FrameType,
  HEADER_SIZE,
  MAX_PAYLOAD,
  NONCE_SIZE,
  SYNC_PADDING,
  encodeHeader,
} from "../../../protocol/index.js";
import { FrameReader } from "../../src/frame-reader.js";

function frame(
  type: FrameType,
  stream: number,
  offset: number,
  payload: Buffer,
): Buffer {
  const bytes = Buffer.alloc(HEADER_SIZE + payload.length + 1);
  encodeHeader(
    new DataView(bytes.buffer, bytes.byteOffset),
    0,
    payload.length,
    type,
    stream,
    offset,
  );
  payload.copy(bytes, HEADER_SIZE);
  bytes[bytes.length - 1] = END_BYTE;
  return bytes;
}

const nonce = Buffer.alloc(NONCE_SIZE, 7);
const sync = frame(FrameType.Sync, 0, 0, nonce);

/** What a reader makes of bytes that come in pieces of the given sizes, over and over. */
function read(
  bytes: Buffer,
  sizes: number[] = [bytes.length],
): { frames: string[]; errors: string[] } {
  const frames: string[] = [];
  const errors: string[] = [];
  const reader: FrameReader = new FrameReader(
    (size) => new ArrayBuffer(size),
    ({ type, stream, offset, length }, at) => {
      const payload = Buffer.from(reader.buffer, at, length).toString("latin1");
      frames.push(
        `${type} ${stream} ${offset} ${length > 40 ? length : payload}`,
      );
    },
    (message) => errors.push(message),
  );
  for (let at = 0, i = 0; at < bytes.length; i++) {
    assert.ok(reader.room > 0, "there is always room");
    const size = Math.min(
      sizes[i % sizes.length] as number,
      reader.room,
      bytes.length - at,
    );
    Buffer.from(reader.buffer).set(bytes.subarray(at, at + size), reader.end);
    reader.advance(size);
    at += size;
  }
  return { frames, errors };
}

const synced = `1 0 0 ${nonce.toString("latin1")}`;

describe("frames", () => {
  const bytes = Buffer.concat([
    frame(FrameType.Request, 0, 0, Buffer.from("{}")),
    frame(FrameType.Data, 4, 2 ** 40 + 3, Buffer.alloc(MAX_PAYLOAD, 1)),
    frame(FrameType.Data, 4, 5, Buffer.alloc(256, 1)),
    frame(FrameType.Ack, 5, 77, Buffer.alloc(0)),
  ]);
  const expected = [
    "2 0 0 {}",
    `5 4 ${2 ** 40 + 3} 65536`,
    "5 4 5 256",
    "6 5 77 ",
  ];
  for (const sizes of [[bytes.length], [1], [3, 70_000, 19], [20]])
    test(`are found in pieces of ${sizes.join(", ")} bytes`, () => {
      assert.deepEqual(read(bytes, sizes), { frames: expected, errors: [] });
    });
});

describe("a new connection", () => {
  const whole = [
    frame(FrameType.Data, 4, 0, Buffer.from("abc")),
    frame(FrameType.Data, 4, 0, Buffer.alloc(256, 255)),
    frame(FrameType.Data, 4, 0, Buffer.alloc(MAX_PAYLOAD, 255)),
    frame(FrameType.Data, 4, 0, Buffer.alloc(MAX_PAYLOAD - 1, 0)),
    frame(FrameType.Ack, 4, 2 ** 50, Buffer.alloc(0)),
  ];
  const after = frame(FrameType.Request, 0, 0, Buffer.from("{}"));
  for (const [i, complete] of whole.entries())
    test(`after any stump of frame ${i} finds its Sync and drops the stump`, () => {
      const cuts = new Set([
        ...Array(60).keys(),
        complete.length - 1,
        complete.length - 2,
        30_000,
      ]);
      for (const cut of cuts) {
        if (cut >= complete.length) continue;
        const bytes = Buffer.concat([
          complete.subarray(0, cut),
          Buffer.alloc(SYNC_PADDING),
          sync,
          after,
        ]);
        assert.deepEqual(
          read(bytes, [4096]),
          { frames: [synced, "2 0 0 {}"], errors: [] },
          `cut at ${cut}`,
        );
      }
    });

  test("twice in a row, the first one cut short, is found", () => {
    const bytes = Buffer.concat([
      Buffer.alloc(1000),
      Buffer.alloc(SYNC_PADDING),
      sync.subarray(0, 9),
      Buffer.alloc(SYNC_PADDING),
      sync,
    ]);
    assert.deepEqual(read(bytes).frames, [synced]);
  });

  test("is found after garbage", () => {
    const garbage = Buffer.alloc(3000, 0xff);
    const result = read(
      Buffer.concat([garbage, Buffer.alloc(SYNC_PADDING), sync, after]),
      [1000],
    );
    assert.deepEqual(result.frames, [synced, "2 0 0 {}"]);
    assert.deepEqual(result.errors, ["frame too long"]);
  });
});

test("a frame with a wrong end byte is dropped", () => {
  const broken = frame(FrameType.Request, 0, 0, Buffer.from("{}"));
  broken[broken.length - 1] = 1;
  const good = frame(FrameType.Ack, 4, 1, Buffer.alloc(0));
  assert.deepEqual(read(Buffer.concat([broken, good])).frames, ["6 4 1 "]);
});
