/** Writes cpio archives of the "newc" kind, which the kernel reads as an initramfs. */

/**
 * @param {{ name: string, mode: number, data?: Buffer, device?: [number, number] }[]} entries
 * @returns {Buffer}
 */
export function writeCpio(entries) {
  const parts = [];
  const all = [...entries, { name: "TRAILER!!!", mode: 0 }];
  all.forEach(({ name, mode, data = Buffer.alloc(0), device = [0, 0] }, i) => {
    const fields = [
      i + 1,
      mode,
      0,
      0,
      1,
      0,
      data.length,
      0,
      0,
      ...device,
      name.length + 1,
      0,
    ];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`;
    parts.push(padded(Buffer.from(`${header}${name}\0`)), padded(data));
  });
  return Buffer.concat(parts);
}

function padded(buffer) {
  return Buffer.concat([buffer, Buffer.alloc(-buffer.length & 3)]);
}
