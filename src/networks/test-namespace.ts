/** For tests that change network devices: they run in a network namespace of their own. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { toolEnvironment } from "./command.js";

/** Set in the process that is inside the namespace. */
const INSIDE = "HULL_TEST_INSIDE_NAMESPACE";

/** Whether this process is the one inside. */
export const insideNamespace = process.env[INSIDE] === "1";

/** Why tests cannot have a namespace here; false when they can. */
export function whyNoNamespace(): string | false {
  const probe = spawnSync(
    "unshare",
    ["--net", "sh", "-c", "ip link add probe0 type bridge && nft list tables"],
    { env: toolEnvironment(), encoding: "utf8" },
  );
  if (probe.status === 0) {
    return false;
  }
  return `no network namespace, bridge or nftables here: ${probe.error?.message ?? probe.stderr.trim()}`;
}

/** Runs a test file again, inside a fresh namespace; returns what it wrote and whether it passed. */
export function runInNamespace(moduleUrl: string): {
  passed: boolean;
  output: string;
} {
  const environment: NodeJS.ProcessEnv = {
    ...toolEnvironment(),
    [INSIDE]: "1",
  };
  // Otherwise node:test takes the process for one of its own and runs nothing.
  delete environment["NODE_TEST_CONTEXT"];
  const run = spawnSync(
    "unshare",
    [
      "--net",
      process.execPath,
      "--import",
      "tsx",
      "--test-reporter=spec",
      fileURLToPath(moduleUrl),
    ],
    { env: environment, encoding: "utf8", timeout: 60_000 },
  );
  return { passed: run.status === 0, output: `${run.stdout}${run.stderr}` };
}
