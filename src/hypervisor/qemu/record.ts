/** What is kept on disk of a machine, to find it again. */
import { z } from "zod";
import { SystemError } from "../../errors.js";
import type { MachineRecord } from "../index.js";
import { guestName } from "./command-line.js";
import {
  argumentsOf,
  isRunning,
  processIdentityShape,
} from "./process-identity.js";
import { shapeSchema } from "./shape.js";

const recordShape = z.object({
  driver: z.literal("qemu"),
  id: z.string(),
  /** As it was named when it started, which may have been before it had an owner. */
  name: z.string(),
  taps: z.array(z.string()),
  uuid: z.string(),
  directory: z.string(),
  /** What a saved machine's successor has to be like; a record of before machines could be saved has none. */
  shape: shapeSchema.optional(),
  memory: z.enum(["own", "clone"]).optional(),
  ...processIdentityShape.shape,
});
export type QemuRecord = z.infer<typeof recordShape>;

/** @throws {SystemError} it is not one of this driver's */
export function parseRecord(record: MachineRecord): QemuRecord {
  const parsed = recordShape.safeParse(record);
  if (!parsed.success) {
    throw new SystemError("the record of a virtual machine is damaged");
  }
  return parsed.data;
}

/** Whether the very process that was recorded runs, and not another one of its number. */
export async function runs(record: QemuRecord): Promise<boolean> {
  if (!(await isRunning(record))) return false;
  const args = await argumentsOf(record.pid);
  const named = `guest=${guestName(record.name, "")}`;
  return (
    args.includes(record.uuid) && args.some((arg) => arg.startsWith(named))
  );
}
