/** The rows of the result: as JSON for machines, as a table for people. */
import type { Summary } from "./statistics.js";

export interface Row {
  name: string;
  unit: string;
  hull: number;
  /** The peer's figure, null where there is no peer on this machine. */
  peer: number | null;
  /** hull divided by the peer. */
  ratio: number | null;
  /** In words, e.g. "≤ 60". */
  goal: string | null;
  met: boolean | null;
  /** Which peer. */
  peerName: string | null;
  /** 90th percentiles and number of samples, where the figures are medians of many. */
  hullP90: number | null;
  peerP90: number | null;
  samples: number;
  /** A part of the figure above it: in a table of its own. */
  detail: boolean;
  /** Where it is drawn. */
  plot: Plot | null;
  /** A goal that is missed fails the bench. */
  mandatory: boolean;
  /** For those who look for this row, however it is worded. */
  key: string | null;
}

/** A bar of the plot. */
export interface Plot {
  /** What is compared, the title of a group of bars. */
  group: string;
  /** What hull's bar is called. */
  label: string;
}

/** A goal for hull's own figure, or for its ratio to the peer's. */
export interface Goal {
  of: "hull" | "ratio";
  is: "at most" | "at least";
  value: number;
}

export interface Measured {
  name: string;
  unit: string;
  hull: Summary;
  peer?: { name: string; summary: Summary } | undefined;
  goal?: Goal | undefined;
  detail?: boolean;
  plot?: Plot | undefined;
  mandatory?: boolean;
  key?: string;
}

export function row(measured: Measured): Row {
  const { name, unit, hull, peer, goal } = measured;
  const ratio = peer ? hull.median / peer.summary.median : null;
  return {
    name,
    unit,
    hull: hull.median,
    peer: peer?.summary.median ?? null,
    ratio,
    goal: goal ? goalText(goal) : null,
    met: goal ? isMet(goal, hull.median, ratio) : null,
    peerName: peer?.name ?? null,
    hullP90: hull.count > 1 ? hull.p90 : null,
    peerP90: peer && peer.summary.count > 1 ? peer.summary.p90 : null,
    samples: hull.count,
    detail: measured.detail ?? false,
    plot: measured.plot ?? null,
    mandatory: measured.mandatory ?? false,
    key: measured.key ?? null,
  };
}

/** One figure that was measured once. */
export function single(value: number): Summary {
  return { median: value, p90: value, count: 1 };
}

function goalText(goal: Goal): string {
  const sign = goal.is === "at most" ? "≤" : "≥";
  return `${sign} ${goal.value}${goal.of === "ratio" ? " × peer" : ""}`;
}

function isMet(goal: Goal, hull: number, ratio: number | null): boolean | null {
  const value = goal.of === "hull" ? hull : ratio;
  if (value === null) {
    return null;
  }
  return goal.is === "at most" ? value <= goal.value : value >= goal.value;
}

/** A Markdown table, its columns padded so that it also reads well as plain text. */
export function table(rows: readonly Row[]): string {
  const cells = [
    ["", "hull (p90)", "peer (p90)", "hull / peer", "goal", "met"],
    ...rows.map((entry) => [
      `${entry.name}, ${entry.unit}`,
      withP90(entry.hull, entry.hullP90),
      entry.peer === null
        ? "–"
        : `${withP90(entry.peer, entry.peerP90)} ${entry.peerName}`,
      entry.ratio === null ? "–" : entry.ratio.toFixed(2),
      entry.goal ?? "–",
      entry.met === null ? "–" : entry.met ? "yes" : "no",
    ]),
  ];
  const widths = cells[0]?.map((_, column) =>
    Math.max(3, ...cells.map((line) => line[column]?.length ?? 0)),
  );
  const lines = cells.map(
    (line) =>
      `| ${line.map((cell, i) => cell.padEnd(widths?.[i] ?? 0)).join(" | ")} |`,
  );
  const rule = `|${widths?.map((width) => "-".repeat(width + 2)).join("|")}|`;
  return [lines[0], rule, ...lines.slice(1)].join("\n");
}

function withP90(value: number, p90: number | null): string {
  return p90 === null ? figure(value) : `${figure(value)} (${figure(p90)})`;
}

/** Three significant digits are more than these figures deserve. */
function figure(value: number): string {
  return value >= 100
    ? value.toFixed(0)
    : value >= 10
      ? value.toFixed(1)
      : value.toFixed(2);
}
