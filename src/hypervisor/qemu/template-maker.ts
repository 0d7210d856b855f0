/** Makes templates: boots a machine on a memory file, and saves it as soon as its agent is there. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { Unavailable } from "../../errors.js";
import { faultPoint } from "../../fault.js";
import type { NicBackend } from "./command-line.js";
import { identifyState, saveState } from "./device-state.js";
import { launch, type Platform } from "./launch.js";
import type { QemuMachine } from "./machine.js";
import { type MachineShape, shapeName } from "./shape.js";
import type { TemplateStore } from "./template-store.js";

export interface TemplateOrder {
  platform: Platform;
  /** Hash of all that a template depends on beside its shape. */
  platformKey: string;
  shape: MachineShape;
  nics: NicBackend[];
  /** A short path; the machine has its sockets below it. */
  runDirectory: string;
}

/**
 * @param signal ends it, and the machine
 * @throws {Unavailable} the machine did not come up, or could not be saved
 * @throws the system's error, e.g. that the disk is full
 */
export async function makeTemplate(
  store: TemplateStore,
  order: TemplateOrder,
  signal: AbortSignal,
): Promise<void> {
  const { platform, platformKey, shape, nics, runDirectory } = order;
  const draft = await store.draft(platformKey, shapeName(shape));
  let directory: string | undefined;
  let machine: QemuMachine | undefined;
  try {
    await mkdir(runDirectory, { recursive: true, mode: 0o700 });
    directory = await mkdtemp(join(runDirectory, "t-"));
    machine = await launch(
      platform,
      {
        name: `hull-template-${shapeName(shape)}`,
        directory,
        shape,
        nics,
        memory: { kind: "template", path: draft.memoryFile },
      },
      signal,
    );
    await Promise.race([machine.agent.hello, ended(machine)]);
    // The agent does the more before it answers to this.
    await Promise.race([machine.agent.request("hello", {}), ended(machine)]);
    faultPoint("template.booted");
    await machine.pause();
    await saveState(machine.qmp, draft.stateFile);
    faultPoint("template.saved");
    await machine.kill();
    await draft.finish(await identifyState(draft.stateFile));
  } catch (error) {
    await machine?.kill();
    await draft.abandon().catch(() => undefined);
    throw error;
  } finally {
    if (directory) await rm(directory, { recursive: true, force: true });
  }
}

async function ended(machine: QemuMachine): Promise<never> {
  const { reason } = await machine.exited;
  throw new Unavailable(`the machine ended: ${reason}`);
}
