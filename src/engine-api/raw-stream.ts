/** The framing that carries a container's output streams over one connection (API "Stream format"). */

/** Media type of a connection that carries one terminal's bytes as they are. */
export const RAW_STREAM = "application/vnd.docker.raw-stream";
/** Media type of a connection whose bytes are framed per stream. */
export const MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream";

/** What a frame's payload is. */
export const StreamKind = {
  Stdin: 0,
  Stdout: 1,
  Stderr: 2,
  /** An error of the engine's own, in words. */
  SystemError: 3,
} as const;
export type StreamKind = (typeof StreamKind)[keyof typeof StreamKind];

/** Size of a frame's header, in bytes. */
export const FRAME_HEADER_SIZE = 8;

/** A frame's header: kind, three zero bytes, and the payload's length, big-endian. */
export function frameHeader(kind: StreamKind, length: number): Buffer {
  const header = Buffer.alloc(FRAME_HEADER_SIZE);
  header[0] = kind;
  header.writeUInt32BE(length, 4);
  return header;
}

/** A whole frame. */
export function frame(kind: StreamKind, payload: Uint8Array): Buffer {
  return Buffer.concat([frameHeader(kind, payload.length), payload]);
}
