/** A line of the progress that pull, push and load report (JSONMessage of the Engine). */
export interface ProgressMessage {
  status: string;
  /** The short ID of a layer, or the tag. */
  id?: string;
  progressDetail?: { current?: number; total?: number };
  /** The bar, drawn for clients that do not draw it themselves. */
  progress?: string;
}

/** Takes progress as it comes; never throws, never waits. */
export type ProgressSink = (message: ProgressMessage) => void;

/** A message about a layer, with its bar when there is something to count. */
export function layerMessage(
  id: string,
  status: string,
  current?: number,
  total?: number,
): ProgressMessage {
  if (current === undefined) return { status, progressDetail: {}, id };
  return {
    status,
    progressDetail: total === undefined ? { current } : { current, total },
    progress: bar(current, total),
    id,
  };
}

const BAR_WIDTH = 50;

function bar(current: number, total: number | undefined): string {
  if (total === undefined || total <= 0 || current > total) {
    return humanSize(current).padStart(8);
  }
  const filled = Math.min(BAR_WIDTH, Math.floor((current / total) * BAR_WIDTH));
  const arrow = filled === BAR_WIDTH ? "" : ">";
  const empty = " ".repeat(Math.max(0, BAR_WIDTH - filled - arrow.length));
  const numbers = `${humanSize(current).padStart(8)}/${humanSize(total)}`;
  return `[${"=".repeat(filled)}${arrow}${empty}] ${numbers}`;
}

/** Four significant digits with decimal units, as in "1.234MB". */
export function humanSize(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let size = bytes;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit++;
  }
  return `${Number(size.toPrecision(4))}${units[unit]}`;
}
