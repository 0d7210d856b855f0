/** A daemon that starts finds the containers, and the machines, that an earlier one left. */
import { readdir, rm } from "node:fs/promises";
import path from "node:path";
import type { Logger } from "pino";
import { Unavailable } from "../errors.js";
import type {
  Hypervisor,
  Machine,
  MachineRecord,
} from "../hypervisor/index.js";
import type { NetworkService } from "../networks/index.js";
import { namesOf } from "./attach-networks.js";
import type { Container } from "./container.js";
import type { Lifecycle } from "./lifecycle.js";
import type { ContainerRecord } from "./record.js";
import { startsWithDaemon } from "./restart-policy.js";
import { whileTheySettle } from "./run/within.js";
import { SilentMachine } from "./silent-machine.js";

export interface RestoreOptions {
  lifecycle: Lifecycle;
  hypervisor: Hypervisor;
  networks: NetworkService;
  log: Logger;
  /** Below it are the machines' folders. */
  machineRoot: string;
  remove: (container: Container) => Promise<void>;
}

/**
 * How long the API waits for the next machine to answer, and then for the next guest, in ms: those that hang are
 * taken over later.
 */
const ADOPTION_LIMIT = 5000;
/** The same for all of them together: guests may take turns at being slow. */
const ADOPTION_MOST = 30_000;

/** Folders of machines, those included that have no container yet. */
const OWN_FOLDER = /^([0-9a-f]{16}|blank-.+)$/;

export async function restoreContainers(
  containers: Container[],
  options: RestoreOptions,
): Promise<void> {
  const { hypervisor, networks, lifecycle, log } = options;
  await endOrphans(containers, options);
  // All at once, here and below: one that does not answer takes the others no time.
  const answers = containers.map(({ record }) =>
    record.machine ? hypervisor.reattach(record.machine) : undefined,
  );
  const waited = waitFor(answers);
  const restored = await Promise.all(
    containers.map(async (container, at) => {
      const { record } = container;
      const startNow =
        startsWithDaemon(record) || record.state.status === "restarting";
      try {
        const found = await find(record, answers[at], waited, hypervisor);
        const taken = await restore(container, found, options);
        return { container, startNow, adoption: taken?.adoption };
      } catch (error) {
        log.error(
          { err: error, container: container.id },
          "cannot restore a container",
        );
        return undefined;
      }
    }),
  );
  const adopted = restored.map(
    (one) => one?.adoption && guarded(one.container, one.adoption, log),
  );
  // What containers have of the networks is known by now.
  await Promise.all([waitFor(adopted), networks.removeOrphans()]);
  for (const one of restored) {
    if (!one?.startNow || one.adoption || one.container.isRunning) continue;
    void guarded(one.container, lifecycle.start(one.container), log);
  }
}

function waitFor(work: readonly (Promise<unknown> | undefined)[]) {
  const there = work.filter((one) => one !== undefined);
  return whileTheySettle(there, ADOPTION_LIMIT, ADOPTION_MOST);
}

/**
 * Finds a container's machine.
 * @param answer the machine's, when there is a record of one
 * @param waited resolves when it is waited for no longer
 * @returns undefined when it has none that runs
 */
async function find(
  { machine }: ContainerRecord,
  answer: Promise<Machine | undefined> | undefined,
  waited: Promise<void>,
  hypervisor: Hypervisor,
): Promise<Machine | SilentMachine | undefined> {
  if (!machine || !answer) return undefined;
  try {
    const came = answer.then(() => true);
    if (await Promise.race([came, waited.then(() => false)]))
      return await answer;
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
  }
  return new SilentMachine(machine, hypervisor, answer);
}

async function endOrphans(
  containers: Container[],
  options: RestoreOptions,
): Promise<void> {
  const { hypervisor, machineRoot, log } = options;
  const known = containers.flatMap(({ record }) => record.machine ?? []);
  const ended = await hypervisor.endOrphans(machineRoot, known);
  if (ended > 0) log.warn({ ended }, "ended machines that no container has");
  await removeOrphanFolders(machineRoot, known);
}

/** A start that was cut short leaves the folder it had made for its machine. */
async function removeOrphanFolders(
  machineRoot: string,
  known: readonly MachineRecord[],
): Promise<void> {
  const kept = new Set(known.map((record) => String(record["directory"])));
  const names = await readdir(machineRoot).catch(() => []);
  for (const name of names) {
    const directory = path.join(machineRoot, name);
    if (kept.has(directory) || !OWN_FOLDER.test(name)) continue;
    await rm(directory, { recursive: true, force: true });
  }
}

/** @returns the taking over of its running machine, which goes on; nothing when there is none that answers */
async function restore(
  container: Container,
  found: Machine | SilentMachine | undefined,
  options: RestoreOptions,
): Promise<{ adoption: Promise<void> } | undefined> {
  const { lifecycle, log } = options;
  const { record } = container;
  const { status } = record.state;
  const running = status === "running" || status === "paused";
  let machine = found;
  if (machine instanceof SilentMachine && !running) {
    // Nothing of it is needed: its container had ended, was not started yet, or is to be removed.
    await machine.end();
    machine = undefined;
  }
  if (machine instanceof SilentMachine) {
    await restoreNetworks(container, options);
    void guarded(container, lifecycle.adoptLater(container, machine), log);
    return undefined;
  }
  if (status === "removing" || record.temporary) {
    record.state.status = "exited";
    if (machine) lifecycle.finishTearDown(container, machine);
    void guarded(container, options.remove(container), log);
    return undefined;
  }
  if (status === "restarting") record.state.status = "exited";
  // A record with a run and no status of it: the daemon was killed in the middle of a start.
  if (
    machine &&
    (running || record.run?.startedAt !== record.state.startedAt)
  ) {
    await restoreNetworks(container, options);
    return { adoption: lifecycle.adopt(container, machine) };
  }
  container.log.compress();
  if (running) await lifecycle.lost(container);
  else if (record.machine) lifecycle.finishTearDown(container, machine);
  return undefined;
}

/** What its machine has of the networks is the container's again. */
async function restoreNetworks(
  { record }: Container,
  { networks }: RestoreOptions,
): Promise<void> {
  for (const tap of record.taps ?? []) networks.restoreTap(tap);
  for (const endpoint of record.endpoints) {
    const { network } = endpoint;
    const request = record.networks.find((one) => one.network === network);
    await networks.restore(namesOf(record), endpoint, request ?? { network });
  }
  await networks.ports.restore(
    namesOf(record),
    record.endpoints,
    record.ports ?? [],
  );
}

async function guarded(
  container: Container,
  work: Promise<void>,
  log: Logger,
): Promise<void> {
  try {
    await work;
  } catch (error) {
    log.error(
      { err: error, container: container.id },
      "cannot restore a container",
    );
  }
}
