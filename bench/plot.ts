/** The plot: an SVG of bars, one group a comparison. */
import type { Row } from "./rows.js";

interface Bar {
  label: string;
  value: number;
  p90: number | null;
  ours: boolean;
}

const WIDTH = 760;
const LEFT = 210;
const RIGHT = 110;
const BAR = 18;
const GAP = 6;
const TITLE = 34;
const INK = "#24292f";
const OURS = "#2563a8";
const THEIRS = "#b9c0c8";

/** @returns the text of an SVG file; bars of rows without a `plot` are left out */
export function plot(rows: readonly Row[], caption: string): string {
  const groups = new Map<string, { unit: string; bars: Bar[] }>();
  for (const row of rows) {
    if (!row.plot) continue;
    const { group, label } = row.plot;
    const { unit, bars } = groups.get(group) ?? { unit: row.unit, bars: [] };
    const add = (bar: Bar) => {
      if (!bars.some((one) => one.label === bar.label)) bars.push(bar);
    };
    add({ label, value: row.hull, p90: row.hullP90, ours: true });
    if (row.peer !== null && row.peerName !== null) {
      // What hull is compared with may be hull, under other circumstances.
      const ours = !/runc/.test(row.peerName);
      const label = row.peerName;
      if (!ours || row.mandatory || !/^with /.test(label)) {
        add({ label, value: row.peer, p90: row.peerP90, ours });
      }
    }
    groups.set(group, { unit, bars });
  }
  let y = 12;
  const parts: string[] = [];
  for (const [group, { unit, bars }] of groups) {
    bars.sort((a, b) => Number(b.ours) - Number(a.ours));
    const most = Math.max(...bars.map(({ value, p90 }) => p90 ?? value));
    const scale = (WIDTH - LEFT - RIGHT) / most;
    y += TITLE - 10;
    parts.push(
      `<text x="12" y="${y}" font-weight="600">${escape(group)}, ${escape(unit)}</text>`,
    );
    y += 10;
    for (const { label, value, p90, ours } of bars) {
      const middle = y + BAR / 2;
      const end = LEFT + value * scale;
      const far = LEFT + (p90 ?? value) * scale;
      parts.push(
        `<text x="${LEFT - 8}" y="${middle + 4}" text-anchor="end">${escape(label)}</text>`,
        `<rect x="${LEFT}" y="${y}" width="${(end - LEFT).toFixed(1)}" height="${BAR}" fill="${ours ? OURS : THEIRS}"/>`,
      );
      if (p90 !== null) {
        parts.push(
          `<path d="M${end.toFixed(1)} ${middle}H${far.toFixed(1)}m0 -4v8" stroke="${INK}" fill="none"/>`,
        );
      }
      parts.push(
        `<text x="${(far + 6).toFixed(1)}" y="${middle + 4}">${figure(value)}</text>`,
      );
      y += BAR + GAP;
    }
  }
  y += 24;
  parts.push(
    `<text x="12" y="${y}" font-size="11" fill="#57606a">${escape(caption)}</text>`,
  );
  const height = y + 14;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="system-ui, sans-serif" font-size="13" fill="${INK}">
<rect width="100%" height="100%" fill="#ffffff"/>
${parts.join("\n")}
</svg>
`;
}

function figure(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}

function escape(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;");
}
