/** Machines that an earlier daemon started. */
import { z } from "zod";
import { Unavailable } from "../../errors.js";
import { SocketAgentClient } from "../agent/client.js";
import type { MachineRecord } from "../index.js";
import { machineSockets } from "./descriptors.js";
import type { SendFiles } from "./jail.js";
import type { MachineGroups } from "./machine-groups.js";
import { QemuMachine } from "./machine.js";
import { isRunning } from "./process-identity.js";
import { adoptProcess } from "./process.js";
import { QmpClient } from "./qmp.js";
import { parseRecord, runs } from "./record.js";
import { connectSocket } from "./socket.js";

/**
 * Connects to a machine that an earlier daemon started.
 * @param groups that its control group is one of
 * @returns undefined when its process is gone
 * @throws {Unavailable} it runs, but does not answer
 * @throws {SystemError} the record is not one of this driver's
 */
export async function reattach(
  record: MachineRecord,
  sendFiles: SendFiles,
  groups?: MachineGroups,
): Promise<QemuMachine | undefined> {
  const parsed = parseRecord(record);
  if (!(await runs(parsed))) return undefined;
  const { id, uuid, directory } = parsed;
  const started = performance.now();
  const sockets = machineSockets(directory);
  let qmp: QmpClient | undefined;
  try {
    qmp = await QmpClient.open(
      await connectSocket(sockets.qmp),
      undefined,
      sendFiles,
    );
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
      process: adoptProcess(parsed, qmp.closed),
      qmp,
      agent: new SocketAgentClient(port, "running"),
      spans: [{ name: "reattach", ms: performance.now() - started }],
    });
    void machine.exited.then(() => groups?.remove(uuid));
    await machine.checkStatus().catch(async (error: unknown) => {
      await machine.detach();
      throw error;
    });
    return machine;
  } catch (error) {
    qmp?.close();
    if (!(await isRunning(parsed))) return undefined;
    throw new Unavailable(
      `the virtual machine of ${id.slice(0, 12)} (process ${parsed.pid}) does not answer: ${(error as Error).message}`,
    );
  }
}

/**
 * Ends a machine that an earlier daemon started, without asking it. Resolves when its process is gone.
 * @throws {SystemError} the record is not one of this driver's
 */
export async function endMachine(
  record: MachineRecord,
  groups?: MachineGroups,
): Promise<void> {
  const parsed = parseRecord(record);
  if (await runs(parsed)) {
    const never = new Promise<void>(() => undefined);
    await adoptProcess(parsed, never).kill();
  }
  await groups?.remove(parsed.uuid);
}
