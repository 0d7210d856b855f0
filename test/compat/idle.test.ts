import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { docker, dockerOk } from "./harness/docker.js";
import { busybox } from "./harness/environment.js";

/** The kernel's clock ticks of /proc/PID/stat, a second. */
const TICKS = 100;

test("a container that does nothing takes next to no CPU time of the host", async (t) => {
  const name = "idle";
  t.after(() => docker(["rm", "-f", name]));
  await dockerOk(["run", "-d", "--name", name, busybox(), "sleep", "1000"]);
  const pid = await dockerOk(["inspect", "-f", "{{.State.Pid}}", name]);
  await sleep(1000);
  const before = cpuSeconds(pid);
  await sleep(2000);
  const used = cpuSeconds(pid) - before;
  assert.ok(used < 0.4, `${used} s of CPU time in 2 s`);
});

function cpuSeconds(pid: string): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}
