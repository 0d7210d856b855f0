import assert from "node:assert/strict";
import { test } from "node:test";
import type { StartReport } from "../containers/start-trace.js";
import { serve } from "../engine-api/test-server.js";
import { metricsRoutes } from "../engine-api/metrics.js";
import { EngineMetrics } from "./engine-metrics.js";

const REPORT: StartReport = {
  container: "c",
  begun: "2026-01-02T03:04:05.000Z",
  kind: "warm",
  spans: [
    { name: "network", at: 0, ms: 3 },
    { name: "setup: anything the guest likes", at: 3, ms: 3 },
  ],
  ms: 20,
};

test("starts are counted by kind, failures and fallbacks apart", async (t) => {
  const metrics = new EngineMetrics({
    version: "1",
    states: () => ["running", "running", "exited"],
    warmMachines: () => 3,
    zygotes: () => 1,
  });
  metrics.ended(REPORT);
  metrics.firstByte({ ...REPORT, firstByteMs: 30 });
  metrics.ended({ ...REPORT, kind: "cold", fallback: "template damaged" });
  metrics.ended({ ...REPORT, error: "no such file" });
  metrics.request({
    method: "POST",
    route: "/containers/:id/start",
    status: 204,
    seconds: 0.02,
  });
  const server = await serve(t, metricsRoutes(metrics.registry));
  const { status, headers, text } = await server.request("GET", "/metrics");
  assert.equal(status, 200);
  assert.match(
    String(headers["content-type"]),
    /^text\/plain; version=0\.0\.4/,
  );
  const lines = text.split("\n");
  for (const expected of [
    'hull_engine_info{version="1"} 1',
    'hull_containers{state="running"} 2',
    "hull_warm_machines 3",
    "hull_zygotes 1",
    'hull_containers{state="exited"} 1',
    'hull_containers{state="paused"} 0',
    'hull_container_starts_total{kind="warm"} 1',
    'hull_container_starts_total{kind="cold"} 1',
    'hull_container_starts_total{kind="restored"} 0',
    "hull_container_start_failures_total 1",
    'hull_container_start_fallbacks_total{kind="cold"} 1',
    'hull_container_start_seconds_bucket{le="0.025",kind="warm"} 1',
    'hull_container_start_seconds_bucket{le="0.01",kind="warm"} 0',
    'hull_container_first_byte_seconds_sum{kind="warm"} 0.03',
    'hull_container_start_span_seconds_count{kind="warm",span="network"} 1',
    'hull_api_request_seconds_count{method="POST",route="/containers/:id/start",status="204"} 1',
  ]) {
    assert.ok(lines.includes(expected), `${expected} is not in\n${text}`);
  }
  assert.doesNotMatch(text, /the guest likes/);
});
