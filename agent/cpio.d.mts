/** Types of cpio.mjs. */
export function writeCpio(
  entries: {
    name: string;
    mode: number;
    data?: Buffer;
    device?: readonly [number, number];
  }[],
): Buffer;
