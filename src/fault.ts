/**
 * Places at which a test can have the daemon killed: `HULL_FAULT=pull.layer-stored hulld …` ends the
 * daemon by SIGKILL, once it comes there, as a crash would. Without the variable a point costs a
 * comparison.
 */

/** Every point by its name, in the order in which the operation comes by. */
export const FAULT_POINTS = [
  "pull.resolved",
  "pull.layer-downloaded",
  "unpack.made",
  "unpack.sealed",
  "pull.blob-linked",
  "pull.layer-renamed",
  "pull.layer-stored",
  "pull.merged",
  "pull.documents-stored",
  "pull.image-recorded",
  "pull.named",
  "create.blank-disk",
  "create.folder",
  "create.disk",
  "create.recorded",
  "start.attached",
  "start.launched",
  "start.greeted",
  "start.recorded",
  "start.spawned",
  "start.booked",
  "stop.signalled",
  "end.unbooked",
  "end.booked",
  "teardown.machine-gone",
  "teardown.detached",
  "teardown.folder-gone",
  "rm.marked",
  "rm.record-gone",
  "rm.files-gone",
  "rmi.unnamed",
  "volume-create.folder",
  "volume-create.recorded",
  "volume-rm.renamed",
  "volume-rm.gone",
  "network-create.recorded",
  "network-create.bridge",
  "network-create.up",
  "network-rm.bridge-gone",
  "network-rm.down",
  "network-rm.gone",
  "commit.layer-packed",
  "commit.layer-stored",
  "commit.config-stored",
  "commit.named",
  "build.context-read",
  "build.run-created",
  "build.run-started",
  "build.run-ended",
  "build.run-committed",
  "build.copy-committed",
  "build.made",
  "build.named",
  "rename.saved",
  "update.recorded",
  "update.applied",
  "template.booted",
  "template.saved",
  "template.described",
] as const;
export type FaultPoint = (typeof FAULT_POINTS)[number];

const wanted = process.env["HULL_FAULT"];

/** The point that is set; undefined when none is. @throws {Error} there is no such point */
export function faultSet(): FaultPoint | undefined {
  if (wanted === undefined || wanted === "") return undefined;
  const point = FAULT_POINTS.find((name) => name === wanted);
  if (point === undefined) {
    throw new Error(`HULL_FAULT: there is no fault point ${wanted}`);
  }
  return point;
}

/** Ends the daemon here if the point is set. */
export function faultPoint(name: FaultPoint): void {
  if (wanted === name) process.kill(process.pid, "SIGKILL");
}
