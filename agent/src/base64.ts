const ALPHABET =
  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/**
 * Decodes standard base64, padded or not.
 * @throws {RangeError} a character is none of the alphabet
 */
export function decodeBase64(text: string): ArrayBuffer {
  let end = text.length;
  while (end > 0 && text[end - 1] === "=") end--;
  const bytes = new Uint8Array(Math.floor((end * 3) / 4));
  let bits = 0;
  let value = 0;
  let at = 0;
  for (let i = 0; i < end; i++) {
    const digit = ALPHABET.indexOf(text[i] as string);
    if (digit < 0) throw new RangeError("not base64");
    value = ((value << 6) | digit) & 0xffffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes[at++] = (value >> bits) & 0xff;
    }
  }
  return bytes.buffer;
}
