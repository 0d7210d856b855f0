/** The key sequence that detaches a client from a terminal (--detach-keys). */
import { InvalidParameter } from "../errors.js";

const DEFAULT = "ctrl-p,ctrl-q";
/** What may follow "ctrl-" beside letters, with its code. */
const CONTROL: Record<string, number> = {
  "@": 0,
  "[": 27,
  "\\": 28,
  "]": 29,
  "^": 30,
  _: 31,
};

/**
 * The bytes of a sequence like "ctrl-p,ctrl-q" or "a,b"; the default one when it is missing or empty.
 * @throws {InvalidParameter} in Docker's words
 */
export function detachKeysOf(text: string | undefined): Buffer {
  const codes = (text || DEFAULT).split(",").map((key) => {
    if (/^[\x20-\x7e]$/.test(key)) return key.charCodeAt(0);
    const control = /^ctrl-(.)$/i.exec(key)?.[1]?.toLowerCase() ?? "";
    if (/[a-z]/.test(control)) return control.charCodeAt(0) - 96;
    const code = CONTROL[control];
    if (code !== undefined) return code;
    throw new InvalidParameter(`Invalid detach keys (${text}) provided`);
  });
  return Buffer.from(codes);
}

/** Looks for the sequence in what a client types, over any chunking. */
export class DetachFilter {
  readonly #keys: Buffer;
  #matched = 0;

  constructor(keys: Buffer) {
    this.#keys = keys;
  }

  /**
   * What of a chunk goes on to the process. The beginning of a sequence is held back until it is clear
   * whether it is one.
   */
  pass(chunk: Buffer): { bytes: Buffer; detach: boolean } {
    const out: Buffer[] = [];
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i];
      if (byte !== this.#keys[this.#matched]) {
        out.push(this.#keys.subarray(0, this.#matched));
        this.#matched = 0;
      }
      if (byte === this.#keys[this.#matched]) {
        this.#matched++;
        if (this.#matched === this.#keys.length) {
          this.#matched = 0;
          return { bytes: Buffer.concat(out), detach: true };
        }
      } else {
        out.push(chunk.subarray(i, i + 1));
      }
    }
    return { bytes: Buffer.concat(out), detach: false };
  }
}
