import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "prom-client";
import type { Container } from "../containers/container.js";
import type { UsageSample } from "../containers/usage.js";
import { containerMetrics } from "./container-metrics.js";

const container = (id: string, name: string) =>
  ({ record: { id: id.repeat(64), name } }) as unknown as Container;

const traffic = (bytes: number) => ({
  bytes,
  packets: 1,
  errors: 0,
  dropped: 0,
});
const SAMPLE: UsageSample = {
  at: "",
  usage: {
    machine: { cpus: 1, memoryBytes: 512, cpuUs: 0 },
    cpu: {
      ...{ userUs: 0, systemUs: 0, totalUs: 1_500_000 },
      ...{ periods: 0, throttledPeriods: 0, throttledUs: 0 },
    },
    memory: { bytes: 100, peakBytes: 200, limitBytes: -1, stat: {} },
    pids: { current: 3, limit: -1 },
    devices: [],
    interfaces: [
      { name: "eth0", rx: traffic(10), tx: traffic(1) },
      { name: "eth1", rx: traffic(20), tx: traffic(2) },
    ],
    diskBytes: 0,
  },
  cost: undefined,
};

test("each running container has its series, and is asked once a scrape", async () => {
  const registry = new Registry();
  let containers = [container("a", "one"), container("b", "two")];
  let asked = 0;
  containerMetrics(
    registry,
    () => containers,
    ({ record }) => {
      asked++;
      if (record.name === "two") return Promise.reject(new Error("it hangs"));
      return Promise.resolve(SAMPLE);
    },
  );
  const labels = '{id="aaaaaaaaaaaa",name="one"}';
  const [text] = await Promise.all([registry.metrics(), registry.metrics()]);
  assert.equal(asked, 2);
  for (const line of [
    `hull_container_cpu_seconds_total${labels} 1.5`,
    `hull_container_memory_limit_bytes${labels} 512`,
    `hull_container_network_receive_bytes_total${labels} 30`,
    `hull_container_processes${labels} 3`,
  ]) {
    assert.ok(text.split("\n").includes(line), `${line} in ${text}`);
  }
  // What is not known is not said: neither of the host, nor of a guest that hangs.
  assert.doesNotMatch(text, /machine_resident_bytes\{|name="two"/);
  containers = [];
  assert.doesNotMatch(await registry.metrics(), /name="one"/);
});
