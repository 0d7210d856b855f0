/** Machines that are nobody's yet: restored out of a template, or booted where that cannot be. */
import { randomBytes } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { Unavailable } from "../../errors.js";
import type { NicBackend } from "./command-line.js";
import { ordersSocket } from "./descriptors.js";
import { launch } from "./launch.js";
import type { QemuMachine } from "./machine.js";
import { type MachineShape, shapeName } from "./shape.js";
import type { TemplatePlatform, Templates } from "./templates.js";

/** How long a machine whose channel is gone may take to be gone itself, in ms. */
const END_MS = 3000;

export interface BringUpOptions {
  /** Machines have their folders below it. */
  machineRoot: string;
  templates: Templates;
  log: Logger;
}

/**
 * Resolves when the guest's agent answers.
 * @param nics for which kind of machine, see shape
 * @throws {Unavailable} QEMU cannot be started, or the guest does not come up
 */
export async function bringUp(
  on: TemplatePlatform,
  shape: MachineShape,
  nics: NicBackend[],
  options: BringUpOptions,
): Promise<QemuMachine> {
  const restored = await restore(on, shape, nics, options);
  if (typeof restored === "object") return restored;
  const machine = await start(options, async (directory, name) => {
    const booted = await launch(on.platform, {
      ...{ name, directory, shape, nics },
      memory: { kind: "own" },
    });
    await answers(booted);
    return booted;
  });
  machine.fallback = restored;
  return machine;
}

/**
 * A machine of the warm pool goes on; one that cannot is replaced.
 * @param nics its own: another machine takes them over
 * @throws {Unavailable} as `bringUp`
 */
export async function goOn(
  machine: QemuMachine,
  on: TemplatePlatform,
  shape: MachineShape,
  nics: NicBackend[],
  options: BringUpOptions,
): Promise<QemuMachine> {
  const began = performance.now();
  try {
    await machine.goOn();
  } catch (error) {
    await machine.kill();
    const reason = (error as Error).message;
    options.log.warn(
      { reason },
      "a machine of the warm pool does not go on: another one is started",
    );
    const other = await bringUp(on, shape, nics, options);
    other.fallback ??= reason;
    return other;
  }
  // What it took to bring it up was nobody's time.
  machine.spans.length = 0;
  machine.spans.push({ name: "resume", ms: performance.now() - began });
  machine.startKind = "warm";
  return machine;
}

/**
 * @param as what it is for
 * @returns why it does not work, which is in the log then; undefined when there is no template
 */
export async function restore(
  on: TemplatePlatform,
  shape: MachineShape,
  nics: NicBackend[],
  options: BringUpOptions,
  as: "blank" | "zygote" = "blank",
): Promise<QemuMachine | string | undefined> {
  const { templates, log } = options;
  const template = await templates.open(on, shape);
  if (!template) return undefined;
  try {
    const launchIn = async (directory: string, name: string) => {
      const clone = await launch(on.platform, {
        ...{ name, directory, shape, nics },
        memory: { kind: "clone", path: template.memoryFile },
        state: template.state.fd,
        ...(as === "zygote" && { orders: ordersSocket(directory) }),
      });
      await Promise.all([clone.resume(), answers(clone)]);
      return clone;
    };
    const machine = await start(options, launchIn, as);
    machine.startKind = "restored";
    return machine;
  } catch (error) {
    const reason = (error as Error).message;
    log.warn(
      { template: shapeName(shape), reason },
      "a machine could not be restored from its template: it is booted instead",
    );
    await templates.discard(on, shape);
    return reason;
  } finally {
    await template.state.close();
  }
}

/**
 * In a folder of its own, which goes when the machine does not come up, and with it unless it is handed over. Its path is as long as any
 * other's: a zygote's copies write their names over its own.
 */
export async function start(
  { machineRoot }: Pick<BringUpOptions, "machineRoot">,
  launchIn: (directory: string, name: string) => Promise<QemuMachine>,
  as: "blank" | "zygote" = "blank",
): Promise<QemuMachine> {
  const id = randomBytes(6).toString("hex");
  const directory = join(
    machineRoot,
    as === "zygote" ? `zygote-${id.slice(1)}` : `blank-${id}`,
  );
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const remove = () => rm(directory, { recursive: true, force: true });
  try {
    const machine = await launchIn(directory, `hull-${id}`);
    void machine.exited.then(() => {
      // What has become a container's is in that one's folder. What is left the next daemon removes.
      if (machine.directory === directory) remove().catch(() => undefined);
    });
    return machine;
  } catch (error) {
    await remove();
    throw error;
  }
}

/** Resolves when the guest's agent answers. */
export async function answers(machine: QemuMachine): Promise<void> {
  try {
    await machine.agent.hello;
  } catch (error) {
    // A machine that ended has a better reason than its channel.
    const limit = new AbortController();
    const end = await Promise.race([
      machine.exited,
      sleep(END_MS, undefined, { signal: limit.signal }).catch(() => undefined),
    ]);
    limit.abort();
    await machine.kill();
    throw end ? new Unavailable(`the machine ended: ${end.reason}`) : error;
  }
}
