/** The agent's size, on disk and in the guest's memory, and how soon it is ready. */
import { PRODUCTS } from "../../src/daemon/installation.js";
import { stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import pino from "pino";
import type { AgentClient } from "../../src/hypervisor/index.js";
import { QemuHypervisor } from "../../src/hypervisor/qemu/driver.js";
import type { Bench, Measure } from "../bench.js";
import { sleep } from "../processes.js";
import { row, single } from "../rows.js";
import { summarize } from "../statistics.js";

const product = (name: string) =>
  fileURLToPath(new URL(`../../build/${name}`, import.meta.url));
const MB = 1e6;
/** How long the agent is left alone before its memory is looked at. */
const IDLE_MS = 500;
const GUEST_MEMORY = 256 * 1024 * 1024;

export const agentMeasure: Measure = {
  name: "agent",
  async run(bench) {
    const directory = await bench.scratch.folder("agent");
    const hypervisor = new QemuHypervisor({
      kernel: product("vmlinux"),
      initramfs: product("initramfs.cpio"),
      accelerator: "auto",
      stateDirectory: directory,
      runDirectory: `${directory}/run`,
      machineRoot: `${directory}/m`,
      // Each sample is a start of the agent, which a machine out of a template has not gone through.
      templates: false,
      jail: {
        programs: PRODUCTS.jail,
        unconfined: false,
        firstUid: 0x70000000,
        cgroupParent: "/hull",
      },
      log: pino({ enabled: false }),
    });
    const samples: Sample[] = [];
    for (let round = -1; round < bench.repeats; round++) {
      const sample = await observe(bench, hypervisor, round);
      if (round >= 0) samples.push(sample);
    }
    const ready = summarize(samples.map(({ readyMs }) => readyMs));
    bench.say(`agent: ready in ${ready.median.toFixed(1)} ms`);
    return [
      row({
        name: "agent, stripped ELF",
        unit: "MB",
        hull: single((await stat(product("agent"))).size / MB),
        goal: { of: "hull", is: "at most", value: 1.5 },
      }),
      row({
        name: "agent, resident when idle",
        unit: "MB",
        hull: summarize(samples.map(({ residentBytes }) => residentBytes / MB)),
        goal: { of: "hull", is: "at most", value: 4 },
      }),
      row({
        name: "agent, start → ready, in the guest",
        unit: "ms",
        hull: ready,
        goal: { of: "hull", is: "at most", value: 60 },
      }),
    ];
  },
};

interface Sample {
  residentBytes: number;
  readyMs: number;
}

/** Boots a machine of its own and asks its agent. */
async function observe(
  bench: Bench,
  hypervisor: QemuHypervisor,
  round: number,
): Promise<Sample> {
  const blank = await hypervisor.prepare({
    memoryBytes: GUEST_MEMORY,
    vcpus: 1,
  });
  const machine = await blank.start({
    id: `bench-agent-${round}`,
    directory: await bench.scratch.folder(`agent/${round}`),
    disks: [],
    forwards: [],
  });
  try {
    await machine.agent.hello;
    await sleep(IDLE_MS);
    return await ask(machine.agent);
  } finally {
    await machine.kill();
    await machine.exited;
  }
}

async function ask(agent: AgentClient): Promise<Sample> {
  const hello = await agent.request("hello", {});
  if (!hello.agent) {
    throw new Error("the agent does not tell of its memory and its start");
  }
  return hello.agent;
}
