/**
 * A byte ring addressed by stream offsets: the bytes of a stream from `begin` to `end`, at most
 * `capacity` of them. Memory is taken with the first byte.
 */
export class Ring {
  private memory: ArrayBuffer | undefined;
  /** Offset of the oldest byte kept. */
  begin = 0;
  /** Offset behind the newest byte. */
  end = 0;

  constructor(
    readonly capacity: number,
    private readonly allocate: (size: number) => ArrayBuffer,
  ) {}

  get buffer(): ArrayBuffer {
    return (this.memory ??= this.allocate(this.capacity));
  }

  /** Bytes that can be put in. */
  get room(): number {
    return this.capacity - (this.end - this.begin);
  }

  /** Place of an offset in the buffer. */
  at(offset: number): number {
    return offset % this.capacity;
  }

  /** Bytes that lie in one piece from `offset`, up to the end of what is kept. */
  piece(offset: number): number {
    return Math.min(this.end - offset, this.capacity - this.at(offset));
  }

  /** Free bytes that lie in one piece behind `end`. */
  get freePiece(): number {
    return Math.min(this.room, this.capacity - this.at(this.end));
  }

  /** Forgets what is below `offset`. */
  forget(offset: number): void {
    this.begin = Math.max(this.begin, Math.min(offset, this.end));
  }

  /** Gives the memory back; offsets stay. */
  drop(): void {
    this.begin = this.end;
    this.memory = undefined;
  }
}
