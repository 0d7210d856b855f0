/** The end of a machine: what a run needed of the host is given back. */
import { rm } from "node:fs/promises";
import path from "node:path";
import { faultPoint } from "../../fault.js";
import type { Machine } from "../../hypervisor/index.js";
import type { Container } from "../container.js";
import { tellMounts } from "../mounts/start.js";
import type { RunContext } from "./context.js";
import { within } from "./within.js";

/** How long a guest may take to flush its disks before its machine is ended, in ms. */
const SHUTDOWN_LIMIT = 10_000;

/** Below it each machine has a folder for its sockets. */
export function machineRoot(execRoot: string): string {
  return path.join(execRoot, "m");
}

/** A container's folder there. The ID is cut, for the sake of the path's length. */
export function machineDirectory(
  execRoot: string,
  container: Container,
): string {
  return path.join(machineRoot(execRoot), container.id.slice(0, 16));
}

/**
 * Gives back what a run needed. The next start waits for all of it (`container.teardown`), the removal for what
 * may not outlive the container (`container.letGo`).
 * @param orderly the guest flushes its disks first
 */
export function tearDown(
  container: Container,
  machine: Machine | undefined,
  orderly: boolean,
  context: RunContext,
): void {
  const { log, underWay } = context;
  const { record } = container;
  const failed = (error: unknown) => {
    log.error(
      { err: error, container: record.id },
      "cannot take down a machine",
    );
  };
  // What the guest has not written yet may be a volume's.
  const flushes = orderly || Boolean(record.mounts?.length);
  const gone = machine
    ? end(machine, flushes).then(() =>
        tellMounts(record, context.volumes, "unmount"),
      )
    : Promise.resolve();
  // A machine that is being killed does nothing any more, but its user mode has the ports until it is gone.
  const userMode = record.endpoints.some(({ nic }) => nic?.kind === "user");
  const waits = flushes || userMode ? gone : Promise.resolve();
  const letGo = waits.then(async () => {
    faultPoint("teardown.machine-gone");
    container.machine = undefined;
    container.files = undefined;
    await context.networks.detach(record.id);
  });
  container.letGo = letGo.catch(() => undefined);
  const teardown = Promise.all([letGo, gone])
    .then(() => giveBack(container, context))
    .catch(failed);
  container.teardown = teardown;
  underWay.add(teardown);
  void teardown.then(() => underWay.delete(teardown));
}

async function end(machine: Machine, flushes: boolean): Promise<void> {
  if (flushes) await shutdown(machine);
  await machine.kill();
  await machine.exited;
}

async function giveBack(
  container: Container,
  { networks, execRoot }: RunContext,
): Promise<void> {
  const { record } = container;
  for (const tap of record.taps ?? []) networks.discardTap(tap);
  faultPoint("teardown.detached");
  await rm(machineDirectory(execRoot, container), {
    recursive: true,
    force: true,
  });
  faultPoint("teardown.folder-gone");
  delete record.machine;
  delete record.run;
  delete record.taps;
  record.endpoints = [];
  delete record.ports;
  if (record.state.status !== "removing") await container.save();
}

async function shutdown(machine: Machine): Promise<void> {
  await within(
    Promise.race([
      machine.agent.request("shutdown", {}).catch(() => undefined),
      machine.exited,
    ]),
    SHUTDOWN_LIMIT,
  );
}
