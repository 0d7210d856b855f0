/** Cuts the bytes that come from the host into frames, by the rules of protocol/frame.ts. */
import {
  END_BYTE,
  FrameType,
  HEADER_SIZE,
  MAX_FRAME,
  MAX_PAYLOAD,
  NONCE_SIZE,
  decodeHeader,
  type FrameHeader,
} from "../../protocol/index.js";

/** Takes a frame; its payload is `header.length` bytes at `at` of the reader's buffer, valid now only. */
export type FrameHandler = (header: FrameHeader, at: number) => void;

export class FrameReader {
  /** Bytes go in at `end`; room for two frames, so that a whole one always fits. */
  readonly buffer: ArrayBuffer;
  private readonly view: DataView;
  private readonly bytes: Uint8Array;
  private begin = 0;
  /** So many bytes make the next step possible. */
  private wanted = HEADER_SIZE;
  /** Where the bytes end that were put in. */
  end = 0;
  /** After a Pad, bytes are dropped up to the Sync frame. */
  private inPadding = false;
  /** After a frame that broke the rules, everything is dropped up to a padding and its Sync frame. */
  private lost = false;
  private zeros = 0;

  constructor(
    allocate: (size: number) => ArrayBuffer,
    private readonly handler: FrameHandler,
    private readonly onError: (message: string) => void,
  ) {
    this.buffer = allocate(2 * MAX_FRAME);
    this.view = new DataView(this.buffer);
    this.bytes = new Uint8Array(this.buffer);
  }

  /** Free bytes behind `end`: at least one frame's worth after each `advance`. */
  get room(): number {
    return this.buffer.byteLength - this.end;
  }

  /** Says that `count` bytes were put in at `end`, and handles every frame that is complete. */
  advance(count: number): void {
    this.end += count;
    // A frame comes in many pieces.
    if (this.end - this.begin >= this.wanted) while (this.step());
    if (this.begin === this.end) {
      this.begin = this.end = 0;
    } else if (this.room < MAX_FRAME) {
      this.bytes.copyWithin(0, this.begin, this.end);
      this.end -= this.begin;
      this.begin = 0;
    }
  }

  /** Takes one frame, or some padding; false when more bytes are needed. */
  private step(): boolean {
    if (this.lost) return this.seekPadding();
    if (this.inPadding) {
      // Found by the engine's own search: byte by byte it takes an emulated guest a tenth of a second.
      const sync = this.bytes.indexOf(NONCE_SIZE, this.begin);
      const found = sync >= 0 && sync < this.end;
      this.begin = found ? sync : this.end;
      if (!found) return false;
      this.inPadding = false;
    }
    this.wanted = HEADER_SIZE;
    if (this.end - this.begin < HEADER_SIZE) return false;
    const header = decodeHeader(this.view, this.begin);
    if (header.length === 0 && header.type === FrameType.Pad && this.isPad()) {
      this.begin += HEADER_SIZE;
      this.inPadding = true;
      this.wanted = 1;
      return true;
    }
    if (header.length > MAX_PAYLOAD) return this.lose("frame too long");
    const size = HEADER_SIZE + header.length + 1;
    if (this.end - this.begin < size) {
      this.wanted = size;
      return false;
    }
    const at = this.begin + HEADER_SIZE;
    this.begin += size;
    if (this.bytes[this.begin - 1] === END_BYTE) this.handler(header, at);
    return true;
  }

  private isPad(): boolean {
    for (let i = 0; i < HEADER_SIZE; i++)
      if (this.bytes[this.begin + i] !== 0) return false;
    return true;
  }

  private lose(message: string): boolean {
    this.lost = true;
    this.wanted = 1;
    this.zeros = 0;
    this.onError(message);
    return true;
  }

  /** A long enough run of zeros that a Sync frame follows can only be a host that begins afresh. */
  private seekPadding(): boolean {
    while (this.begin < this.end) {
      const zero = this.bytes[this.begin] === 0;
      if (!zero && this.zeros > MAX_PAYLOAD && this.mayBeSync()) {
        this.lost = false;
        return true;
      }
      this.zeros = zero ? this.zeros + 1 : 0;
      this.begin++;
    }
    return false;
  }

  private mayBeSync(): boolean {
    return (
      this.bytes[this.begin] === NONCE_SIZE &&
      (this.end - this.begin < 5 ||
        this.bytes[this.begin + 4] === FrameType.Sync)
    );
  }
}
