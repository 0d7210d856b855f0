/** The agent's size, on disk and in the guest's memory, and how soon it is ready. */
import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { writeCpio } from "../../agent/cpio.mjs";
import { QemuHypervisor } from "../../src/hypervisor/qemu/driver.js";
import type { Bench, Measure } from "../bench.js";
import { findProgram, sleep } from "../processes.js";
import { row, single } from "../rows.js";
import { summarize } from "../statistics.js";

const product = (name: string) =>
  fileURLToPath(new URL(`../../build/${name}`, import.meta.url));
const MB = 1e6;
const KIB = 1024;
/** Seconds the agent is left alone before its memory is looked at. */
const IDLE_SECONDS = 2;
/** Seconds the observer lets its second process come to rest before the agent begins. */
const SETTLE_SECONDS = 0.3;
const GUEST_MEMORY = 256 * 1024 * 1024;

export const agentMeasure: Measure = {
  name: "agent",
  async run(bench) {
    const resident: number[] = [];
    const ready: number[] = [];
    const hypervisor = await prepare(bench);
    for (let round = -1; round < bench.repeats; round++) {
      const sample = await observe(bench, hypervisor, round);
      if (round >= 0) {
        resident.push(sample.residentBytes / MB);
        ready.push(sample.readyMs);
      }
    }
    bench.say(`agent: ready ${summarize(ready).median.toFixed(1)} ms`);
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
        hull: summarize(resident),
        goal: { of: "hull", is: "at most", value: 4 },
      }),
      row({
        name: "agent, exec → ready, in the guest",
        unit: "ms",
        hull: summarize(ready),
        goal: { of: "hull", is: "at most", value: 60 },
      }),
    ];
  },
};

/** Says the time of CLOCK_MONOTONIC, becomes the agent, and tells later what /proc says of it. */
const OBSERVER = `#!/bench/busybox sh
b=/bench/busybox
$b mkdir -p /bench/proc
$b mount -t proc proc /bench/proc
{
  $b sleep ${IDLE_SECONDS}
  $b echo "bench: $($b cat /bench/now)"
  $b echo "bench: $($b grep VmRSS /bench/proc/1/status)"
} &
$b sleep ${SETTLE_SECONDS}
$b grep -m 1 'now at' /bench/proc/timer_list >/bench/now
exec /bench/agent
`;

/** The agent's own initramfs with the observer in front of the agent. */
async function prepare(bench: Bench): Promise<QemuHypervisor> {
  const busybox = findProgram("busybox");
  if (!busybox) {
    throw new Error("busybox is missing (busybox-static)");
  }
  const EXECUTABLE = 0o100755;
  const FOLDER = 0o040755;
  const NULL_DEVICE = 0o020666;
  const extra = writeCpio([
    { name: "bench", mode: FOLDER },
    { name: "dev", mode: FOLDER },
    { name: "dev/null", mode: NULL_DEVICE, device: [1, 3] },
    { name: "bench/busybox", mode: EXECUTABLE, data: await readFile(busybox) },
    {
      name: "bench/agent",
      mode: EXECUTABLE,
      data: await readFile(product("agent")),
    },
    { name: "init", mode: EXECUTABLE, data: Buffer.from(OBSERVER) },
  ]);
  const directory = await bench.scratch.folder("agent");
  const initramfs = join(directory, "initramfs.cpio");
  await writeFile(
    initramfs,
    Buffer.concat([await readFile(product("initramfs.cpio")), extra]),
  );
  return new QemuHypervisor({
    kernel: product("vmlinux"),
    initramfs,
    accelerator: "auto",
    stateDirectory: directory,
    runDirectory: join(directory, "run"),
  });
}

interface Sample {
  residentBytes: number;
  /** From the exec of the agent to its first word. */
  readyMs: number;
}

async function observe(
  bench: Bench,
  hypervisor: QemuHypervisor,
  round: number,
): Promise<Sample> {
  const directory = await bench.scratch.folder(`agent/${round}`);
  await mkdir(directory, { recursive: true });
  const machine = await hypervisor.start({
    id: `bench-agent-${round}`,
    directory,
    memoryBytes: GUEST_MEMORY,
    vcpus: 1,
    disks: [],
    nics: [],
  });
  try {
    const { uptimeMs } = await machine.agent.hello;
    for (let tries = 0; tries < 40; tries++) {
      await sleep(250);
      const text = await machine.console();
      const started = /bench: now at (\d+) nsecs/.exec(text)?.[1];
      const resident = /bench: VmRSS:\s*(\d+) kB/.exec(text)?.[1];
      if (started && resident) {
        return {
          residentBytes: Number(resident) * KIB,
          readyMs: uptimeMs - Number(started) / 1e6,
        };
      }
    }
    throw new Error(`the guest told nothing:\n${await machine.console()}`);
  } finally {
    await machine.kill();
    await machine.exited;
  }
}
