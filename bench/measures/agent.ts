/** The agent's size, on disk and in the guest's memory, and how soon it is ready. */
import { stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { Measure } from "../bench.js";
import { row, single } from "../rows.js";

const AGENT = fileURLToPath(new URL("../../build/agent", import.meta.url));
const MB = 1e6;

export const agentMeasure: Measure = {
  name: "agent",
  async run() {
    return [
      row({
        name: "agent, stripped ELF",
        unit: "MB",
        hull: single((await stat(AGENT)).size / MB),
        goal: { of: "hull", is: "at most", value: 1.5 },
      }),
    ];
  },
};
