import { randomUUID } from "node:crypto";
import { stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { InvalidParameter, SystemError, Unavailable } from "../../errors.js";
import { SocketAgentClient } from "../agent/client.js";
import type { Disk, MachineRecord, MachineSpec } from "../index.js";
import {
  checkShape,
  commandLine,
  machineSockets,
  type QemuDisk,
} from "./command-line.js";
import { QemuMachine } from "./machine.js";
import { memoryMiB } from "./memory.js";
import {
  argumentsOf,
  isRunning,
  processIdentityShape,
} from "./process-identity.js";
import { adoptProcess, lastWords, startProcess } from "./process.js";
import { QmpClient } from "./qmp.js";
import { StartSpans } from "./start-spans.js";
import { connectSocket, connectWhenThere } from "./socket.js";
import { vmdkDescriptor } from "./vmdk.js";

/** QEMU is set up in tens of milliseconds; on a host that swaps it may take long. */
const GREETING_MS = 20_000;
/** A guest that has not said hello by then never will, in ms. */
const BOOT_MS = 60_000;

/** How the message of a failed launch begins; QEMU's own words follow. */
export const LAUNCH_FAILED = "the virtual machine could not be started: ";

/** What all machines of this host have in common. */
export interface Platform {
  binary: string;
  kernel: string;
  initramfs: string;
  accelerator: "kvm" | "tcg";
  tscKhz: number | undefined;
}

const recordShape = z.object({
  driver: z.literal("qemu"),
  id: z.string(),
  uuid: z.string(),
  directory: z.string(),
  ...processIdentityShape.shape,
});

/**
 * Starts a machine's process and connects to it.
 * @param signal ends the process by SIGKILL, now or later
 * @throws {InvalidParameter} the spec asks for what a machine cannot have, or a disk's file is not right
 * @throws {Unavailable} QEMU cannot be started, with its own words
 */
export async function launch(
  platform: Platform,
  spec: MachineSpec,
  signal?: AbortSignal,
): Promise<QemuMachine> {
  const spans = new StartSpans();
  const sockets = machineSockets(spec.directory);
  checkShape(spec);
  const memory = memoryMiB(spec.memoryBytes);
  const disks = await Promise.all(
    spec.disks.map((disk, index) => prepareDisk(disk, index, spec.directory)),
  );
  const uuid = randomUUID();
  const args = commandLine({
    ...platform,
    name: `hull-${spec.id}`,
    uuid,
    memoryMiB: memory,
    vcpus: spec.vcpus,
    disks,
    nics: spec.nics,
    sockets,
  });
  spans.done("disks");

  const process = await startProcess(platform.binary, args, spec.directory);
  spans.done("process");
  const kill = () => void process.kill();
  signal?.addEventListener("abort", kill);
  if (signal?.aborted) kill();
  const failed = new AbortController();
  void process.ended.then(() => failed.abort());
  try {
    const control = await connectWhenThere(sockets.qmp, failed.signal);
    if (!control) throw new Unavailable("QEMU ended at once");
    const qmp = await QmpClient.open(control, GREETING_MS);
    const port = await connectSocket(sockets.agent);
    const agent = new SocketAgentClient(port, "fresh");
    const late = setTimeout(
      () => agent.close(`the guest did not come up in ${BOOT_MS / 1000} s`),
      BOOT_MS,
    ).unref();
    void agent.closed.then(() => clearTimeout(late));
    agent.hello.then(
      (hello) => {
        clearTimeout(late);
        spans.hello(hello);
      },
      () => undefined,
    );
    const record: MachineRecord = {
      driver: "qemu",
      id: spec.id,
      uuid,
      directory: spec.directory,
      ...process.identity,
    } satisfies z.infer<typeof recordShape>;
    return new QemuMachine({
      record,
      directory: spec.directory,
      process,
      qmp,
      agent,
      spans: spans.list,
    });
  } catch (error) {
    const early = failed.signal.aborted;
    await process.kill();
    const words = await lastWords(spec.directory);
    throw new Unavailable(
      `${LAUNCH_FAILED}${
        words || (early ? "QEMU ended at once" : (error as Error).message)
      }`,
    );
  }
}

/**
 * Connects to a machine that an earlier daemon started.
 * @returns undefined when its process is gone
 * @throws {Unavailable} it runs, but does not answer
 * @throws {SystemError} the record is not one of this driver's
 */
export async function reattach(
  record: MachineRecord,
): Promise<QemuMachine | undefined> {
  const parsed = recordShape.safeParse(record);
  if (!parsed.success) {
    throw new SystemError("the record of a virtual machine is damaged");
  }
  const { id, uuid, directory, ...identity } = parsed.data;
  if (!(await isRunning(identity))) return undefined;
  const args = await argumentsOf(identity.pid);
  if (!args.includes(uuid) || !args.includes(`guest=hull-${id}`)) {
    return undefined;
  }
  const started = performance.now();
  const sockets = machineSockets(directory);
  try {
    const qmp = await QmpClient.open(await connectSocket(sockets.qmp));
    const answer = z
      .object({ UUID: z.string() })
      .parse(await qmp.execute("query-uuid"));
    if (answer.UUID !== uuid) {
      qmp.close();
      return undefined;
    }
    const port = await connectSocket(sockets.agent);
    const machine = new QemuMachine({
      record,
      directory,
      process: adoptProcess(identity, qmp.closed),
      qmp,
      agent: new SocketAgentClient(port, "running"),
      spans: [{ name: "reattach", ms: performance.now() - started }],
    });
    await machine.checkStatus();
    return machine;
  } catch (error) {
    if (!(await isRunning(identity))) return undefined;
    throw new Unavailable(
      `the virtual machine of ${id.slice(0, 12)} (process ${identity.pid}) does not answer: ${(error as Error).message}`,
    );
  }
}

/** Checks a disk's files and joins them where they are several. */
async function prepareDisk(
  disk: Disk,
  index: number,
  directory: string,
): Promise<QemuDisk> {
  const { parts, readonly } = disk;
  const first = parts[0];
  if (!first || (!readonly && parts.length > 1)) {
    throw new InvalidParameter(
      `disk ${index} of a machine has ${parts.length} parts`,
    );
  }
  await Promise.all(
    parts.map(async ({ path, bytes }) => {
      const size = await stat(path).then(
        (stats) => stats.size,
        (error: NodeJS.ErrnoException) => {
          throw new InvalidParameter(
            `disk ${index} of a machine cannot be used: ${error.message}`,
          );
        },
      );
      if (size < bytes) {
        throw new InvalidParameter(
          `disk ${index} of a machine cannot be used: ${path} has ${size} bytes instead of ${bytes}`,
        );
      }
    }),
  );
  if (parts.length === 1) {
    return { path: first.path, format: "raw", readonly };
  }
  const path = join(directory, `disk${index}.vmdk`);
  await writeFile(path, vmdkDescriptor(parts), { mode: 0o600 });
  return { path, format: "vmdk", readonly };
}
