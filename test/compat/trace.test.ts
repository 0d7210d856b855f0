import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { api } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import {
  docker,
  dockerOk,
  removeContainers,
  uniqueName,
} from "./harness/docker.js";
import { busybox } from "./harness/environment.js";

const HULLD = fileURLToPath(new URL("../../bin/hulld", import.meta.url));

interface Report {
  kind?: string;
  error?: string;
  spans: { name: string; at: number; ms: number }[];
  ms: number;
  firstByteMs?: number;
}

function hulld(
  ...args: string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(HULLD, args, (error, stdout, stderr) => {
      const code = error ? Number(error.code) : 0;
      resolve({ code, stdout, stderr });
    });
  });
}

const report = async (name: string) => {
  const { status, json } = await api(
    "GET",
    `/hull/containers/${name}/start-trace`,
  );
  assert.equal(status, 200);
  return json as Report;
};

describe("the trace of a start", () => {
  const name = uniqueName("trace");
  before(() => dockerOk(["run", "--name", name, busybox(), "echo", "hello"]));
  after(() => removeContainers(name));

  test("has every part from the request to the first byte of output", async () => {
    const { kind, spans, ms, firstByteMs, error } = await report(name);
    assert.ok(
      ["cold", "restored", "forked", "warm"].includes(kind ?? ""),
      kind,
    );
    assert.equal(error, undefined);
    for (const part of [
      "api",
      "image",
      "network",
      "machine",
      "setup",
      "exec",
    ]) {
      const span = spans.find((one) => one.name === part);
      assert.ok(span, `${part} in ${JSON.stringify(spans)}`);
      assert.ok(span.at >= 0 && span.ms >= 0 && span.at + span.ms <= ms + 1);
    }
    assert.ok(spans.some((one) => /^machine: ./.test(one.name)));
    assert.ok(spans.some((one) => /^setup: ./.test(one.name)));
    assert.ok(firstByteMs !== undefined && firstByteMs > 0);
  });

  test("is printed by hulld trace, and is there after a restart of the daemon", async () => {
    const { host } = Daemon.shared();
    const first = await hulld("trace", name, "-H", host);
    assert.equal(first.code, 0, first.stderr);
    assert.match(first.stdout, /^start +(cold|restored|forked|warm)/m);
    assert.match(first.stdout, /^output +after \d+\.\d ms$/m);
    assert.match(first.stdout, /^setup: \S.* +\d+\.\d +\d+\.\d +=+$/m);

    await Daemon.shared().stop("SIGTERM");
    await Daemon.shared().start();
    const second = await hulld("trace", name, "-H", host);
    assert.equal(second.stdout, first.stdout);
  });

  test("of a container that is not there, or never was started, is an error", async () => {
    const { host } = Daemon.shared();
    const nobody = await hulld("trace", "nobody", "-H", host);
    assert.equal(nobody.code, 1);
    assert.equal(nobody.stderr, "hulld: No such container: nobody\n");

    const created = uniqueName("created");
    await dockerOk(["create", "--name", created, busybox()]);
    const never = await hulld("trace", created, "-H", host);
    await removeContainers(created);
    assert.equal(never.code, 1);
    assert.match(never.stderr, /has not been started yet/);

    const nowhere = path.join(Daemon.shared().directory, "nowhere");
    const silent = await hulld("trace", name, "-H", `unix://${nowhere}`);
    assert.equal(silent.code, 1);
    assert.match(silent.stderr, /cannot reach the daemon/);
  });
});

describe("/metrics", () => {
  const read = async (series: string) => {
    const { text } = await api("GET", "/metrics");
    const values = text
      .split("\n")
      .filter((line) => line.startsWith(series) && !line.startsWith("#"))
      .map((line) => Number(line.split(" ").at(-1)));
    return values.reduce((sum, value) => sum + value, 0);
  };

  test("counts starts and failures, and times requests and spans", async () => {
    const starts = await read("hull_container_starts_total");
    const failures = await read("hull_container_start_failures_total");
    const bytes = await read("hull_container_first_byte_seconds_count");
    const requests =
      'hull_api_request_seconds_count{method="POST",route="/containers/:id/start"';
    const asked = await read(requests);

    await dockerOk(["run", "--rm", busybox(), "echo", "hello"]);
    assert.equal((await docker(["run", "--rm", busybox(), "/none"])).code, 127);

    assert.equal(await read("hull_container_starts_total"), starts + 1);
    assert.equal(
      await read("hull_container_start_failures_total"),
      failures + 1,
    );
    assert.equal(
      await read("hull_container_first_byte_seconds_count"),
      bytes + 1,
    );
    assert.equal(await read(requests), asked + 2);
    assert.ok((await read("hull_container_start_span_seconds_count")) > 0);
  });

  test("tells containers by state, and what each takes", async () => {
    const name = uniqueName("idle");
    const before = await read('hull_containers{state="running"}');
    await dockerOk(["run", "-d", "--name", name, busybox(), "sleep", "1000"]);
    assert.equal(await read('hull_containers{state="running"}'), before + 1);
    const id = await dockerOk(["ps", "-qf", `name=${name}`]);
    const of = (series: string) =>
      read(`hull_container_${series}{id="${id}",name="${name}"}`);
    assert.equal(await of("processes"), 1);
    assert.ok((await of("cpu_seconds_total")) > 0, "CPU time");
    assert.ok((await of("machine_resident_bytes")) > 0, "the host's cost");
    await removeContainers(name);
    assert.equal(await read('hull_containers{state="running"}'), before);
  });
});
