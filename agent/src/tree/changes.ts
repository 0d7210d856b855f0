/**
 * What the container changed in its image: the overlay's upper folder against the image below, told as
 * the Engine tells it (moby, archive.ChangesDirs) and packed as a layer (image-spec, "Layer").
 */
import {
  AT_FDCWD,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  S_IFCHR,
} from "../constants.js";
import { LOWER, UPPER } from "../rootfs.js";
import { StatField, unless, type Bytes } from "../sys.js";
import { Status } from "./status.js";

const FOLDER_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
const OPAQUE = "trusted.overlay.opaque";

export const ChangeKind = { Modified: 0, Added: 1, Deleted: 2 } as const;
export type ChangeKind = (typeof ChangeKind)[keyof typeof ChangeKind];

export interface ChangeVisitor {
  /**
   * Folders come before what is in them.
   * @param path relative to the root
   * @param folder where in the upper folder it is called `name`; nothing is there if it was deleted
   * @param replaced it is a folder of which nothing in the image is seen
   */
  change(
    kind: ChangeKind,
    path: Bytes,
    folder: number,
    name: Bytes,
    replaced: boolean,
  ): void;
}

interface Frame {
  upper: number;
  /** -1 where the image has no such folder. */
  lower: number;
  /** Names in the image that were not met above; only of a folder that hides the image's. */
  hidden: Set<Bytes> | undefined;
  names: Bytes[];
  next: number;
  /** With a slash at the end unless it is "". */
  prefix: Bytes;
  /** The folder's own change was told. */
  told: boolean;
}

/** @param leftOut paths relative to the root: the engine's own, which are no changes of the container */
export function visitChanges(
  leftOut: Set<Bytes>,
  visitor: ChangeVisitor,
): void {
  const above = new Status();
  const below = new Status();
  const frames: Frame[] = [];
  const enter = (frame: Omit<Frame, "names" | "next" | "hidden">) => {
    const opaque = frame.lower >= 0 && isOpaque(frame.upper);
    frames.push({
      ...frame,
      hidden: opaque ? new Set(sys.namesIn(frame.lower)) : undefined,
      names: sys.namesIn(frame.upper),
      next: 0,
    });
  };
  /** Tells of a change, and before it of the folders it is in. */
  const tell = (
    kind: ChangeKind,
    path: Bytes,
    folder: number,
    name: Bytes,
    replaced: boolean,
  ) => {
    for (let i = 1; i < frames.length; i++) {
      const frame = frames[i] as Frame;
      if (frame.told) continue;
      frame.told = true;
      const parent = frame.prefix.slice(0, -1);
      visitor.change(
        ChangeKind.Modified,
        parent,
        (frames[i - 1] as Frame).upper,
        parent.slice(parent.lastIndexOf("/") + 1),
        frame.hidden !== undefined,
      );
    }
    visitor.change(kind, path, folder, name, replaced);
  };

  enter({
    upper: sys.openAt(AT_FDCWD, UPPER, FOLDER_FLAGS, 0),
    lower: sys.openAt(AT_FDCWD, LOWER, FOLDER_FLAGS, 0),
    prefix: "",
    told: true,
  });
  for (let frame; (frame = frames[frames.length - 1]);) {
    const { upper, lower, hidden, prefix } = frame;
    const name = frame.names[frame.next++];
    if (name === undefined) {
      hidden?.forEach((gone) => {
        if (!leftOut.has(prefix + gone))
          tell(ChangeKind.Deleted, prefix + gone, upper, gone, false);
      });
      sys.close(upper);
      if (lower >= 0) sys.close(lower);
      frames.pop();
      continue;
    }
    const path = prefix + name;
    hidden?.delete(name);
    if (leftOut.has(path)) continue;
    // What the container removes while we look is left out.
    unless(["ENOENT"], () => {
      above.read(upper, name);
      const old = lower >= 0 && below.readIfThere(lower, name);
      if (isWhiteout(above)) {
        if (old) tell(ChangeKind.Deleted, path, upper, name, false);
        return;
      }
      const { isFolder } = above;
      const merged = isFolder && old && below.isFolder;
      const child = isFolder ? sys.openAt(upper, name, FOLDER_FLAGS, 0) : -1;
      const changed = !old || differ(above, below);
      if (changed)
        tell(
          old ? ChangeKind.Modified : ChangeKind.Added,
          path,
          upper,
          name,
          merged && isOpaque(child),
        );
      if (isFolder)
        enter({
          upper: child,
          lower: merged ? sys.openAt(lower, name, FOLDER_FLAGS, 0) : -1,
          prefix: `${path}/`,
          told: changed,
        });
    });
  }
}

/** Overlayfs's mark for "not there any more". */
function isWhiteout(status: Status): boolean {
  return (
    status.format === S_IFCHR &&
    status.get(StatField.Major) === 0 &&
    status.get(StatField.Minor) === 0
  );
}

function isOpaque(folder: number): boolean {
  const attributes = sys.xattrsAt(folder, ".") ?? [];
  const at = attributes.indexOf(OPAQUE);
  return at >= 0 && at % 2 === 0 && attributes[at + 1] === "y";
}

/** Sizes and times of folders are no changes; content counts by its time. */
function differ(a: Status, b: Status): boolean {
  const { Mode, Uid, Gid, Major, Minor, Size } = StatField;
  const other = [Mode, Uid, Gid, Major, Minor].some(
    (field) => a.get(field) !== b.get(field),
  );
  return (
    other || (!a.isFolder && (a.get(Size) !== b.get(Size) || !sameTime(a, b)))
  );
}

/** As moby's sameFsTime: one that knows no nanoseconds is compared without. */
function sameTime(a: Status, b: Status): boolean {
  const { Seconds, Nanoseconds } = StatField;
  if (a.get(Seconds) !== b.get(Seconds)) return false;
  const [one, other] = [a.get(Nanoseconds), b.get(Nanoseconds)];
  return one === other || one === 0 || other === 0;
}
