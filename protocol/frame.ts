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
 * A Request, Response or Event whose JSON is longer than MAX_PAYLOAD is cut into several frames of its
 * type, one after the other (frames of other types may come between them): `stream` is 1 in all but
 * the last one, where it is 0. Together they are at most MAX_MESSAGE bytes.
 *
 * Flow control. The receiver of a stream acknowledges what it is done with; a sender never sends at or
 * beyond `acknowledged + WINDOW`. Data follows without gaps: a Data frame's offset is where the one
 * before ended, Eof's is the stream's length. Both sides begin a new stream at 0, acknowledged 0. The
 * agent silently drops Data, Eof and Ack of a process it does not know (the host may not have heard
 * yet that it is gone) and acknowledges stdin that nobody will read any more (so that no writer waits
 * for ever). The host closes the channel on a frame of a stream it did not open.
 *
 * First connection of a fresh machine: no Sync. The host connects before the guest is up; the agent
 * opens the port and its first frame is the `hello` event.
 *
 * Later connections. A sender that is killed in the middle of a frame leaves a stump. A host that finds
 * a running machine therefore begins with SYNC_PADDING zero bytes and a Sync frame with a fresh random
 * nonce. The zeros complete the stump, whose end byte is then zero: a frame with a wrong end byte is
 * dropped whole, whatever its header says, so nothing but `length` is looked at before the end byte is
 * there. At least HEADER_SIZE zeros remain: a header of only zeros is a Pad, and after it the receiver
 * drops all bytes up to the first NONCE_SIZE, which begins the Sync frame (the low byte of its length).
 * To Sync the agent
 *  1. drops the part of a frame it may be in the middle of writing, and all frames it has queued;
 *  2. forgets the requests that came before: they are carried out, but not answered;
 *  3. writes SYNC_MAGIC and the nonce, outside of any frame (the host discards all that came before);
 *  4. writes an Ack for each process's stdin: up to where it was consumed. (Up to where it was
 *     received says `stdinReceived` in `hello`; there the host goes on.)
 * An output stream is then silent until the host's first Ack for it, whose offset says from where the
 * agent sends (again). Exit events are not repeated: `hello`, which the host requests first, tells.
 */

/** Largest payload of one frame, in bytes. A longer length in a header closes the channel. */
export const MAX_PAYLOAD = 64 * 1024;
/** Largest JSON message, in bytes of UTF-8. A longer one closes the channel. */
export const MAX_MESSAGE = 4 * 1024 * 1024;
/** Size of a frame's header, in bytes. */
export const HEADER_SIZE = 20;
/** The byte that ends each frame. */
export const END_BYTE = 0xa5;
/** Size of the largest frame, in bytes. */
export const MAX_FRAME = HEADER_SIZE + MAX_PAYLOAD + 1;
/** Zero bytes before a Sync frame: they end any stump, and a Pad's header is left over. */
export const SYNC_PADDING = MAX_FRAME + HEADER_SIZE;
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
  /** A header of zeros, without an end byte: drop all that follows up to a Sync frame. */
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
