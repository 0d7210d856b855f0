import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { Unavailable } from "../../errors.js";

/** Identity of a file the guest boots from. */
export interface GuestFile {
  /** SHA-256, hex. */
  hash: string;
  /** The kernel's release, e.g. "6.12.43"; "" in a file that is no kernel. */
  release: string;
}

const BANNER = "Linux version ";

/**
 * Reads a guest kernel or initramfs.
 * @param what what it is and how to make it, for the error
 * @throws {Unavailable} it cannot be read
 */
export async function readGuestFile(
  path: string,
  what: string,
): Promise<GuestFile> {
  const hash = createHash("sha256");
  let release = "";
  let tail = "";
  try {
    for await (const chunk of createReadStream(path, {
      highWaterMark: 1024 * 1024,
    }) as AsyncIterable<Buffer>) {
      hash.update(chunk);
      if (release) continue;
      const text = tail + chunk.toString("latin1");
      release = releaseIn(text);
      tail = text.slice(-256);
    }
  } catch (error) {
    throw new Unavailable(`${what}: ${(error as Error).message}`);
  }
  return { hash: hash.digest("hex"), release };
}

/** The release in the kernel's banner, "Linux version RELEASE (builder) …". */
function releaseIn(text: string): string {
  let at = -1;
  while ((at = text.indexOf(BANNER, at + 1)) >= 0) {
    const begin = at + BANNER.length;
    const found = /^(\d+\.\d+[\w.+-]*) \(/.exec(text.slice(begin, begin + 100));
    if (found?.[1]) return found[1];
  }
  return "";
}
