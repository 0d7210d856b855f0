import { z } from "zod";
import { CONSOLE_BYTES } from "./command-line.js";
import type { QmpClient } from "./qmp.js";

/** The tail of a guest's kernel console. QEMU's ring gives each byte out once, so what came is kept. */
export class ConsoleTail {
  #bytes = Buffer.alloc(0);

  /** Reads what is new and returns the tail as text without control characters. */
  async read(qmp: QmpClient): Promise<string> {
    const answer = await qmp.execute("ringbuf-read", {
      device: "console",
      size: CONSOLE_BYTES,
      format: "base64",
    });
    const news = Buffer.from(z.string().parse(answer), "base64");
    this.#bytes = Buffer.concat([this.#bytes, news]).subarray(-CONSOLE_BYTES);
    return this.text;
  }

  get text(): string {
    return printable(this.#bytes.toString("utf8"));
  }
}

/** Lines and tabs stay; other control characters, which a terminal would obey, do not. */
export function printable(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "");
}

/** What the kernel said when it gave up, if it did: at most 200 characters. */
export function panicMessage(console: string): string | undefined {
  const found = /Kernel panic - not syncing: ([^\n]*)/.exec(console);
  return found?.[1]?.slice(0, 200);
}
