/** What the engine tells Prometheus of itself. */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { StartObserver } from "../containers/start-traces.js";
import type { StartReport } from "../containers/start-trace.js";

/** Seconds: from a warm start's parts to a cold boot on a busy host. */
const START_BUCKETS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
];
/** Seconds: most answers come at once; a pull, an attach or a wait lasts. */
const REQUEST_BUCKETS = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60];
const KINDS = ["cold", "restored", "forked", "warm"] as const;
const STATES = [
  "created",
  "running",
  "paused",
  "restarting",
  "removing",
  "exited",
  "dead",
] as const;

export interface EngineMetricsOptions {
  version: string;
  /** Every container's state. */
  states: () => readonly string[];
  /** Machines that stand ready. */
  warmMachines: () => number;
  /** Machines that others are forked from. */
  zygotes: () => number;
}

export class EngineMetrics implements StartObserver {
  /** Others may register series of theirs here. */
  readonly registry = new Registry();
  readonly #starts: Counter<"kind">;
  readonly #failures: Counter;
  readonly #fallbacks: Counter<"kind">;
  readonly #startSeconds: Histogram<"kind">;
  readonly #firstByteSeconds: Histogram<"kind">;
  readonly #spanSeconds: Histogram<"kind" | "span">;
  readonly #requestSeconds: Histogram<"method" | "route" | "status">;

  constructor({
    version,
    states,
    warmMachines,
    zygotes,
  }: EngineMetricsOptions) {
    const registers = [this.registry];
    new Gauge({
      name: "hull_engine_info",
      help: "1, with the engine's version",
      labelNames: ["version"],
      registers,
    }).set({ version }, 1);
    new Gauge({
      name: "hull_containers",
      help: "Containers by state",
      labelNames: ["state"],
      registers,
      collect() {
        const all = states();
        for (const state of STATES) {
          this.set({ state }, all.filter((one) => one === state).length);
        }
      },
    });
    new Gauge({
      name: "hull_warm_machines",
      help: "Machines that stand ready for containers",
      registers,
      collect() {
        this.set(warmMachines());
      },
    });
    new Gauge({
      name: "hull_zygotes",
      help: "Machines that stand still for others to be forked from them",
      registers,
      collect() {
        this.set(zygotes());
      },
    });
    new Gauge({
      name: "process_resident_memory_bytes",
      help: "Resident memory of the daemon, without its machines",
      registers,
      collect() {
        this.set(process.memoryUsage.rss());
      },
    });
    new Gauge({
      name: "process_start_time_seconds",
      help: "When the daemon started, in seconds since the epoch",
      registers,
    }).set(Math.round(Date.now() / 1000 - process.uptime()));
    new Counter({
      name: "process_cpu_seconds_total",
      help: "CPU time of the daemon, without its machines",
      registers,
      collect() {
        const { user, system } = process.cpuUsage();
        this.reset();
        this.inc((user + system) / 1e6);
      },
    });

    this.#starts = new Counter({
      name: "hull_container_starts_total",
      help: "Starts that succeeded, by how the machine came up: cold, restored from a template, warm from the pool",
      labelNames: ["kind"],
      registers,
    });
    this.#failures = new Counter({
      name: "hull_container_start_failures_total",
      help: "Starts that failed",
      registers,
    });
    this.#fallbacks = new Counter({
      name: "hull_container_start_fallbacks_total",
      help: "Starts for which a faster way was tried and did not work, by the way that did",
      labelNames: ["kind"],
      registers,
    });
    // A series is there before it has counted anything, so that a rate can be asked for.
    for (const kind of KINDS) {
      this.#starts.inc({ kind }, 0);
      this.#fallbacks.inc({ kind }, 0);
    }
    this.#startSeconds = new Histogram({
      name: "hull_container_start_seconds",
      help: "From the request to the container running",
      labelNames: ["kind"],
      buckets: START_BUCKETS,
      registers,
    });
    this.#firstByteSeconds = new Histogram({
      name: "hull_container_first_byte_seconds",
      help: "From the request to the first byte of output, where one came within 10 seconds",
      labelNames: ["kind"],
      buckets: START_BUCKETS,
      registers,
    });
    this.#spanSeconds = new Histogram({
      name: "hull_container_start_span_seconds",
      help: "Parts of starts; some overlap",
      labelNames: ["kind", "span"],
      buckets: START_BUCKETS,
      registers,
    });
    this.#requestSeconds = new Histogram({
      name: "hull_api_request_seconds",
      help: "API requests, from the head to the end of their handling",
      labelNames: ["method", "route", "status"],
      buckets: REQUEST_BUCKETS,
      registers,
    });
  }

  ended(report: StartReport): void {
    if (report.error !== undefined) {
      this.#failures.inc();
      return;
    }
    const kind = report.kind ?? "cold";
    this.#starts.inc({ kind });
    if (report.fallback !== undefined) this.#fallbacks.inc({ kind });
    this.#startSeconds.observe({ kind }, report.ms / 1000);
    for (const { name, ms } of report.spans) {
      // The names of the setup's steps come from the guest: they could be any, and any number.
      if (name.startsWith("setup: ")) continue;
      this.#spanSeconds.observe({ kind, span: name }, ms / 1000);
    }
  }

  firstByte({ kind = "cold", firstByteMs = 0 }: StartReport): void {
    this.#firstByteSeconds.observe({ kind }, firstByteMs / 1000);
  }

  /** See `RequestObserver` of the API's server. */
  request(request: {
    method: string;
    route: string | undefined;
    status: number;
    seconds: number;
  }): void {
    const { method, route = "none", status, seconds } = request;
    this.#requestSeconds.observe({ method, route, status }, seconds);
  }
}
