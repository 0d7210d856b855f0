/** What running containers take, for Prometheus: of their machine, and their machine of the host. */
import { Counter, Gauge, type Registry } from "prom-client";
import type { Container } from "../containers/container.js";
import { sampleUsage, type UsageSample } from "../containers/usage.js";

type Kind = "counter" | "gauge";
type Value = (sample: UsageSample) => number | undefined;

const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);

/** Name behind `hull_container_`, what it is, and where it comes from. */
const SERIES: readonly (readonly [string, Kind, string, Value])[] = [
  [
    "cpu_seconds_total",
    "counter",
    "CPU time of the container's processes",
    ({ usage }) => usage.cpu.totalUs / 1e6,
  ],
  [
    "memory_bytes",
    "gauge",
    "Memory of the container's cgroup",
    ({ usage }) => usage.memory.bytes,
  ],
  [
    "memory_limit_bytes",
    "gauge",
    "Its memory limit, or what its machine has",
    ({ usage: { memory, machine } }) =>
      memory.limitBytes < 0 ? machine.memoryBytes : memory.limitBytes,
  ],
  [
    "network_receive_bytes_total",
    "counter",
    "Received on all of its networks",
    ({ usage }) => sum(usage.interfaces.map(({ rx }) => rx.bytes)),
  ],
  [
    "network_transmit_bytes_total",
    "counter",
    "Sent on all of its networks",
    ({ usage }) => sum(usage.interfaces.map(({ tx }) => tx.bytes)),
  ],
  [
    "block_read_bytes_total",
    "counter",
    "Read from its disks",
    ({ usage }) => sum(usage.devices.map(({ readBytes }) => readBytes)),
  ],
  [
    "block_write_bytes_total",
    "counter",
    "Written to its disks",
    ({ usage }) => sum(usage.devices.map(({ writtenBytes }) => writtenBytes)),
  ],
  [
    "processes",
    "gauge",
    "Its processes and threads",
    ({ usage }) => usage.pids.current,
  ],
  [
    "machine_cpu_seconds_total",
    "counter",
    "CPU time of the host for its machine",
    ({ cost }) => cost && cost.cpuNs / 1e9,
  ],
  [
    "machine_resident_bytes",
    "gauge",
    "Memory of the host for its machine",
    ({ cost }) => cost?.residentBytes,
  ],
  [
    "machine_private_bytes",
    "gauge",
    "The part of it that is shared with no other machine",
    ({ cost }) => cost?.privateBytes,
  ],
];

interface Sampled {
  labels: { id: string; name: string };
  sample: UsageSample;
}

/**
 * Registers the series. There are as many of each as containers run: one that has ended has none. A guest is
 * asked once a scrape, however many scrape at a time, and is not waited for longer than `sampleUsage` does.
 */
export function containerMetrics(
  registry: Registry,
  containers: () => Container[],
  sample: typeof sampleUsage = sampleUsage,
): void {
  let underWay: Promise<Sampled[]> | undefined;
  const samples = () => {
    underWay ??= sampled(containers(), sample).finally(() => {
      underWay = undefined;
    });
    return underWay;
  };
  for (const [name, kind, help, value] of SERIES) {
    const options = {
      name: `hull_container_${name}`,
      help,
      labelNames: ["id", "name"] as const,
      registers: [registry],
    };
    // In one go, when all is known: others may scrape at the same time.
    const fill = (
      found: Sampled[],
      set: (labels: Sampled["labels"], number: number) => void,
    ) => {
      for (const { labels, sample } of found) {
        const number = value(sample);
        if (number !== undefined) set(labels, number);
      }
    };
    if (kind === "gauge") {
      new Gauge({
        ...options,
        async collect() {
          const found = await samples();
          this.reset();
          fill(found, (labels, number) => this.set(labels, number));
        },
      });
    } else {
      new Counter({
        ...options,
        async collect() {
          const found = await samples();
          this.reset();
          fill(found, (labels, number) => this.inc(labels, number));
        },
      });
    }
  }
}

async function sampled(
  containers: Container[],
  sample: typeof sampleUsage,
): Promise<Sampled[]> {
  const all = await Promise.all(
    containers.map(async (container) => {
      const found = await sample(container).catch(() => undefined);
      const { id, name } = container.record;
      return found && { labels: { id: id.slice(0, 12), name }, sample: found };
    }),
  );
  return all.flatMap((one) => one ?? []);
}
