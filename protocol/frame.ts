/**
 * The framing of the host–agent channel: the one definition both sides import.
 *
 * The channel is a virtio-serial port: a reliable, ordered byte pipe whose host end may vanish (the
 * daemon is killed) and come back. A frame is a 20-byte little-endian header, a payload and one end
 * byte:
 *
 *     0  u32  payload length, at most MAX_PAYLOAD
 *     4  u32  frame type
 *     8  u32  stream (0 where the type has none)
 *    12  u64  offset (0 where the type has none)
 *    20  …    payload
 *     …  u8   END_BYTE
 *
 * A sender that is killed in the middle of a frame leaves a stump. The next host connection therefore
 * begins with MAX_FRAME zero bytes (a run of Pad frames, or the rest of the stump, whose end byte is
 * then zero and whose content is dropped) and a Sync frame with a fresh random nonce. The agent
 * answers with SYNC_MAGIC and the nonce outside of any frame; the host discards all that came before.
 */

/** Largest payload of one frame, in bytes. A longer length in a header closes the channel. */
export const MAX_PAYLOAD = 64 * 1024;
/** Size of a frame's header, in bytes. */
export const HEADER_SIZE = 20;
/** The byte that ends each frame. */
export const END_BYTE = 0xa5;
/** Size of the largest frame, and of the padding that begins a connection, in bytes. */
export const MAX_FRAME = HEADER_SIZE + MAX_PAYLOAD + 1;
/** Length of the nonce in a Sync frame, in bytes. */
export const NONCE_SIZE = 16;
/** What the agent writes before the nonce when it answers Sync. */
export const SYNC_MAGIC: readonly number[] = [
  0x00, 0xff, 0x68, 0x75, 0x6c, 0x6c, 0xff, 0x00, 0x73, 0x79, 0x6e, 0x63, 0x0d,
  0x0a, 0x1a, 0x0a,
];
/**
 * How many bytes of one stream may be under way: a sender stops at `acknowledged + WINDOW`. It is
 * also the size of the ring in which the agent keeps what the host has not acknowledged.
 */
export const WINDOW = 256 * 1024;

/** Frame types. A receiver closes the channel on one it does not know. */
export const FrameType = {
  /** Nothing; skipped. All-zero bytes read as a run of these (they alone have no end byte). */
  Pad: 0,
  /** Host to agent: payload is the nonce; see the file's comment. */
  Sync: 1,
  /** Host to agent: JSON {@link import("./messages.js").Request}. */
  Request: 2,
  /** Agent to host: JSON {@link import("./messages.js").Response}. */
  Response: 3,
  /** Agent to host: JSON {@link import("./messages.js").AgentEvent}. */
  Event: 4,
  /** Bytes of a stream; `offset` is the position of the first one in the stream. */
  Data: 5,
  /** The receiver is done with all bytes below `offset`; the sender may forget them. */
  Ack: 6,
  /** The stream ends at `offset`. */
  Eof: 7,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

/** A decoded header. `offset` is exact up to 2^53, i.e. 8 PiB of one stream. */
export interface FrameHeader {
  length: number;
  type: number;
  stream: number;
  offset: number;
}

/** Writes a header at `at`. */
export function encodeHeader(
  view: DataView,
  at: number,
  length: number,
  type: FrameType,
  stream: number,
  offset: number,
): void {
  view.setUint32(at, length, true);
  view.setUint32(at + 4, type, true);
  view.setUint32(at + 8, stream, true);
  view.setUint32(at + 12, offset % 0x100000000, true);
  view.setUint32(at + 16, Math.floor(offset / 0x100000000), true);
}

/** Reads the header at `at`. The caller checks `length` against MAX_PAYLOAD before it trusts it. */
export function decodeHeader(view: DataView, at: number): FrameHeader {
  return {
    length: view.getUint32(at, true),
    type: view.getUint32(at + 4, true),
    stream: view.getUint32(at + 8, true),
    offset:
      view.getUint32(at + 16, true) * 0x100000000 +
      view.getUint32(at + 12, true),
  };
}

/** The three streams of a process. */
export const Channel = { Stdin: 0, Stdout: 1, Stderr: 2 } as const;
export type Channel = (typeof Channel)[keyof typeof Channel];

/**
 * The stream number of one of a process's streams. Process numbers are the host's choice: 1 is the
 * container's own process, execs count up from 2 and are not used again within one VM's life.
 */
export function streamOf(process: number, channel: Channel): number {
  return process * 4 + channel;
}
