/** Saves a machine whole, memory and devices, for a later one to go on with; see saved.ts. */
import { z } from "zod";
import { Conflict } from "../../errors.js";
import type { MachineRecord } from "../index.js";
import { emptyNode } from "./command-line.js";
import { saveState } from "./device-state.js";
import { addNode, insertNode } from "./handover.js";
import type { QmpClient } from "./qmp.js";
import { shapeSchema } from "./shape.js";

/** The slot of the image's disk. */
const IMAGE_SLOT = 0;

const likenessShape = z.object({
  shape: shapeSchema,
  memory: z.enum(["own", "clone"]),
});

export const savedShape = likenessShape.extend({
  driver: z.literal("qemu"),
  version: z.string(),
  accelerator: z.enum(["kvm", "tcg"]),
});

/** What a saved machine's successor has to be like. */
export type SavedRecord = z.infer<typeof savedShape>;

/** See {@link Machine.save}. */
export async function saveMachine(
  machine: { qmp: QmpClient; record: MachineRecord },
  file: string,
): Promise<MachineRecord> {
  const { qmp } = machine;
  const likeness = likenessShape.safeParse(machine.record);
  if (!likeness.success) {
    throw new Conflict(
      "the machine was started by an older version of hull, which could not save machines: restart the container first",
    );
  }
  const [version, kvm] = await Promise.all([
    qmp.execute("query-version"),
    qmp.execute("query-kvm"),
  ]);
  const { major, minor, micro } = z
    .object({
      qemu: z.object({ major: z.int(), minor: z.int(), micro: z.int() }),
    })
    .parse(version).qemu;
  const { enabled } = z.object({ enabled: z.boolean() }).parse(kvm);
  await withoutJoinedDisk(qmp, () =>
    saveState(qmp, file, "devices and memory"),
  );
  return {
    driver: "qemu",
    ...likeness.data,
    version: `${major}.${minor}.${micro}`,
    accelerator: enabled ? "kvm" : "tcg",
  } satisfies SavedRecord;
}

const nodesShape = z.array(
  z.looseObject({ "node-name": z.string(), drv: z.string(), file: z.string() }),
);

/**
 * QEMU saves no machine with a VMDK in it, as the image's disk is where it has several parts. The machine
 * stands still and the disk is read-only: it is taken out and put back.
 */
async function withoutJoinedDisk(
  qmp: QmpClient,
  action: () => Promise<unknown>,
): Promise<void> {
  const nodes = nodesShape.parse(
    await qmp.execute("query-named-block-nodes", { flat: true }),
  );
  const joined = nodes.find(({ drv }) => drv === "vmdk");
  if (!joined) {
    await action();
    return;
  }
  await insertNode(qmp, emptyNode(IMAGE_SLOT), IMAGE_SLOT);
  try {
    await qmp.execute("blockdev-del", { "node-name": joined["node-name"] });
    await action();
  } finally {
    await addNode(qmp, "vmdk", joined.file, true, joined["node-name"]);
    await insertNode(qmp, joined["node-name"], IMAGE_SLOT);
  }
}
