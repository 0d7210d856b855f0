/**
 * The names a layer has brought so far. Paths of a layer are resolved against this tree and nothing
 * else, so that no name, link or symbolic link can lead out of the layer's own root.
 */
import { TarError } from "./tar-header.js";

/** Anything that is neither a directory, a symbolic link nor a whiteout. */
export const LEAF = 1;
/** The name hides what lower layers have there. */
export const WHITEOUT = 2;

export interface Directory {
  children: Map<string, Node>;
  /** Hides what lower layers have in it. */
  opaque: boolean;
}

export interface Symlink {
  target: string;
}

export type Node = typeof LEAF | typeof WHITEOUT | Directory | Symlink;

export function isDirectory(node: Node | undefined): node is Directory {
  return typeof node === "object" && "children" in node;
}

export function isSymlink(node: Node | undefined): node is Symlink {
  return typeof node === "object" && "target" in node;
}

export function directory(): Directory {
  return { children: new Map(), opaque: false };
}

/** As the kernel's limit for one path resolution. */
const MAX_SYMLINKS = 40;

/**
 * The parts of a path in normal form: without ".", "..", empty parts and leading slashes.
 * @throws {TarError} the path leads out of the root
 */
export function split(path: string): string[] {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.pop() === undefined) {
      throw new TarError(`${JSON.stringify(path)} is outside of the layer`);
    }
  }
  return parts;
}

/** Where a path leads. */
export interface Place {
  directory: Directory;
  /** Names from the root to the directory, symbolic links resolved. */
  path: string[];
}

/**
 * Walks to a directory, following the layer's own symbolic links within its root.
 * @param missing called for a name that is not there (or hidden) yet; makes it or throws
 * @throws {TarError} a part is not a directory, or too many symbolic links
 */
export function walk(
  root: Directory,
  parts: readonly string[],
  missing: (place: Place, name: string, node: Node | undefined) => Directory,
): Place {
  const trail: Place[] = [];
  let place: Place = { directory: root, path: [] };
  const todo = [...parts].reverse();
  let symlinks = 0;
  for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
    if (name === "" || name === ".") continue;
    if (name === "..") {
      // Above the root is the root, as after a chroot.
      place = trail.pop() ?? place;
      continue;
    }
    const node = place.directory.children.get(name);
    if (isSymlink(node)) {
      if (++symlinks > MAX_SYMLINKS) {
        throw new TarError(`${parts.join("/")}: too many symbolic links`);
      }
      if (node.target.startsWith("/")) {
        trail.length = 0;
        place = { directory: root, path: [] };
      }
      todo.push(...node.target.split("/").reverse());
      continue;
    }
    if (node === LEAF) {
      throw new TarError(`${[...place.path, name].join("/")}: not a directory`);
    }
    const next = isDirectory(node) ? node : missing(place, name, node);
    trail.push(place);
    place = { directory: next, path: [...place.path, name] };
  }
  return place;
}
