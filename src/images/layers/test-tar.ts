/** For tests: tar archives with anything in them, valid or not. Strings are bytes ("latin1"). */

export interface TestEntry {
  name: string;
  type?: string;
  data?: string | Buffer;
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: number;
  link?: string;
  device?: [major: number, minor: number];
  pax?: Record<string, string>;
  /** Written as it is instead of the data's length. */
  sizeField?: string;
  /** "ustar\0" + "00" by default. */
  magic?: string;
  badChecksum?: boolean;
}

/** An archive with its two blocks of zeros at the end. */
export function tar(...entries: TestEntry[]): Buffer {
  return Buffer.concat([...entries.map(tarEntry), Buffer.alloc(1024)]);
}

export function tarEntry(entry: TestEntry): Buffer {
  const data =
    typeof entry.data === "string"
      ? Buffer.from(entry.data, "latin1")
      : (entry.data ?? Buffer.alloc(0));
  const parts: Buffer[] = [];
  if (entry.pax !== undefined) {
    const records = Object.entries(entry.pax).map(([key, value]) => {
      const text = ` ${key}=${value}\n`;
      let length = text.length;
      while (`${length}`.length + text.length !== length) {
        length = `${length}`.length + text.length;
      }
      return `${length}${text}`;
    });
    parts.push(
      tarEntry({ name: "PaxHeaders/x", type: "x", data: records.join("") }),
    );
  }
  const block = Buffer.alloc(512);
  const put = (text: string, offset: number): void => {
    block.write(text, offset, "latin1");
  };
  const octal = (value: number, digits: number): string =>
    value.toString(8).padStart(digits, "0");
  put(entry.name.slice(0, 100), 0);
  put(octal(entry.mode ?? (entry.type === "5" ? 0o755 : 0o644), 7), 100);
  put(octal(entry.uid ?? 0, 7), 108);
  put(octal(entry.gid ?? 0, 7), 116);
  put(entry.sizeField ?? octal(data.length, 11), 124);
  put(octal(entry.mtime ?? 1_000_000_000, 11), 136);
  put(entry.type ?? "0", 156);
  put((entry.link ?? "").slice(0, 100), 157);
  put(entry.magic ?? "ustar\x0000", 257);
  if (entry.device !== undefined) {
    put(octal(entry.device[0], 7), 329);
    put(octal(entry.device[1], 7), 337);
  }
  put("        ", 148);
  let sum = 0;
  for (const byte of block) sum += byte;
  put(`${octal(sum + (entry.badChecksum === true ? 1 : 0), 6)}\0 `, 148);
  parts.push(block, data, Buffer.alloc((512 - (data.length % 512)) % 512));
  return Buffer.concat(parts);
}
