/** A file of an archive: a folder, device or plain file by its mode. */
export interface CpioEntry {
  name: string;
  mode: number;
  data?: Buffer;
  device?: [number, number];
}

export function writeCpio(entries: CpioEntry[]): Buffer;
