import { createHash } from "node:crypto";

/** A content address: "sha256:" and 64 lower-case hexadecimal digits. */
export type Digest = `sha256:${string}`;

const SHA256 = /^sha256:[a-f0-9]{64}$/;

/** Whether the text is a digest this engine can verify. */
export function isDigest(text: string): text is Digest {
  return SHA256.test(text);
}

/** The digest of bytes at hand. */
export function digestOf(bytes: Uint8Array): Digest {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** The hexadecimal part, a safe file name. */
export function hexOf(digest: Digest): string {
  return digest.slice("sha256:".length);
}

/** The short form Docker's progress lines and `docker images` show. */
export function shortId(digest: string): string {
  return digest.slice(digest.indexOf(":") + 1).slice(0, 12);
}
