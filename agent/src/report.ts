/** What a child says over a pipe of how its start went: nothing once it has executed its program. */
import { EPOLLIN } from "./constants.js";
import { enlarge } from "./files.js";
import type { EventLoop } from "./loop.js";

/** A longer one is cut. */
const MAX_SIZE = 64 * 1024;
/** Most say nothing: large memory would be cleared for it. */
const SHORT = 1024;

export class Report {
  /** When it has ended. */
  readonly text: Promise<string>;
  private resolve: (text: string) => void = () => undefined;
  private bytes = new ArrayBuffer(SHORT);
  private length = 0;

  /** @param fd owned by it from now on */
  constructor(
    private fd: number,
    private readonly loop: EventLoop,
  ) {
    this.text = new Promise((resolve) => {
      this.resolve = resolve;
    });
    loop.add(fd, EPOLLIN, () => this.read());
  }

  /** Nobody wants to know. */
  close(): void {
    if (this.fd < 0) return;
    this.loop.remove(this.fd);
    sys.close(this.fd);
    this.fd = -1;
  }

  private read(): void {
    const { bytes, length } = this;
    const room = bytes.byteLength - length;
    const count = sys.read(this.fd, bytes, length, room);
    if (count <= 0) {
      this.close();
      this.resolve(sys.decode(bytes, 0, length));
      return;
    }
    this.length += count;
    if (this.length === SHORT) this.bytes = enlarge(bytes, MAX_SIZE);
  }
}
