/** A container's use of resources as the API shows it: ContainerStatsResponse. */
import type { TrafficCounters, Usage } from "../../protocol/index.js";
import type { Container } from "./container.js";
import { NEVER } from "./record.js";
import type { UsageSample } from "./usage.js";

/**
 * @param sample what is known of the container; undefined when it does not run
 * @param before the sample before, from which clients compute the share of the CPU
 */
export function statsView(
  container: Container,
  sample: UsageSample | undefined,
  before: UsageSample | undefined,
) {
  const { record } = container;
  const usage = sample?.usage;
  return {
    name: `/${record.name}`,
    id: record.id,
    read: sample?.at ?? NEVER,
    preread: before?.at ?? NEVER,
    pids_stats: usage ? pidsView(usage) : {},
    blkio_stats: blockView(usage),
    num_procs: 0,
    storage_stats: {},
    cpu_stats: cpuView(usage),
    precpu_stats: cpuView(before?.usage),
    memory_stats: usage ? memoryView(usage) : {},
    ...(usage?.interfaces.length ? { networks: networksView(usage) } : {}),
    // Beyond Docker: what the machine as a whole takes of the host.
    ...(sample?.cost
      ? {
          machine: {
            pid: sample.cost.pid,
            cpu_usage: sample.cost.cpuNs,
            memory_resident: sample.cost.residentBytes,
            memory_private: sample.cost.privateBytes,
            threads: sample.cost.threads,
          },
        }
      : {}),
  };
}

function pidsView({ pids }: Usage) {
  return {
    current: pids.current,
    ...(pids.limit >= 0 ? { limit: pids.limit } : {}),
  };
}

/** Times in nanoseconds; the system's is that of all the machine's CPUs together, idle or not. */
function cpuView(usage: Usage | undefined) {
  const cpu = usage?.cpu;
  const ns = (us: number | undefined) => Math.round((us ?? 0) * 1000);
  return {
    cpu_usage: {
      total_usage: ns(cpu?.totalUs),
      usage_in_kernelmode: ns(cpu?.systemUs),
      usage_in_usermode: ns(cpu?.userUs),
    },
    ...(usage
      ? {
          system_cpu_usage: ns(usage.machine.cpuUs),
          online_cpus: usage.machine.cpus,
        }
      : {}),
    throttling_data: {
      periods: cpu?.periods ?? 0,
      throttled_periods: cpu?.throttledPeriods ?? 0,
      throttled_time: ns(cpu?.throttledUs),
    },
  };
}

function memoryView({ memory, machine }: Usage) {
  return {
    usage: memory.bytes,
    stats: memory.stat,
    limit: memory.limitBytes >= 0 ? memory.limitBytes : machine.memoryBytes,
  };
}

function blockView(usage: Usage | undefined) {
  const entries = (
    read: "readBytes" | "reads",
    write: "writtenBytes" | "writes",
  ) =>
    usage?.devices.flatMap((device) => {
      const { major, minor } = device;
      return [
        { major, minor, op: "read", value: device[read] },
        { major, minor, op: "write", value: device[write] },
      ];
    }) ?? null;
  return {
    io_service_bytes_recursive: entries("readBytes", "writtenBytes"),
    io_serviced_recursive: entries("reads", "writes"),
    io_queue_recursive: null,
    io_service_time_recursive: null,
    io_wait_time_recursive: null,
    io_merged_recursive: null,
    io_time_recursive: null,
    sectors_recursive: null,
  };
}

function networksView({ interfaces }: Usage) {
  const view = (way: "rx" | "tx", counters: TrafficCounters) => ({
    [`${way}_bytes`]: counters.bytes,
    [`${way}_packets`]: counters.packets,
    [`${way}_errors`]: counters.errors,
    [`${way}_dropped`]: counters.dropped,
  });
  return Object.fromEntries(
    interfaces.map(({ name, rx, tx }) => [
      name,
      { ...view("rx", rx), ...view("tx", tx) },
    ]),
  );
}
