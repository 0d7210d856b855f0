import assert from "node:assert/strict";
import { test } from "node:test";
import { plot } from "./plot.js";
import { row, single } from "./rows.js";

const of = (median: number) => ({ median, p90: median * 2, count: 15 });
const group = "docker run <image>";

test("each bar once: hull's first, then its peers'; lengths by the longest with its p90", () => {
  const peers = ["dockerd 1 + runc", "podman 2 + runc"].map((name, index) =>
    row({
      name: "run",
      unit: "ms",
      hull: of(50),
      peer: { name, summary: of(100 * (index + 1)) },
      plot: { group, label: "hull" },
    }),
  );
  const svg = plot(
    [...peers, row({ name: "x", unit: "MB", hull: single(1) })],
    "c",
  );
  assert.match(svg, /docker run &lt;image&gt;, ms/);
  const labels = [...svg.matchAll(/text-anchor="end">([^<]*)</g)].map(
    ([, label]) => label,
  );
  assert.deepEqual(labels, ["hull", "dockerd 1 + runc", "podman 2 + runc"]);
  const widths = [...svg.matchAll(/<rect x="\d+" [^>]*width="([\d.]+)"/g)].map(
    ([, width]) => Number(width),
  );
  // 400 is the longest p90: it takes the 440 pixels there are.
  assert.deepEqual(widths, [55, 110, 220]);
});
