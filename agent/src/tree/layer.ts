/** The container's changes as the tar archive of an image layer. */
import type { Bytes } from "../sys.js";
import type { Archive } from "./archive.js";
import { ChangeKind, type ChangeVisitor } from "./changes.js";
import { blankEntry } from "./tar-format.js";
import type { TarWriter } from "./tar-writer.js";

const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";

export class LayerPacker implements ChangeVisitor {
  /** Folders of which nothing in the image is seen: single deletions in them need no mark. */
  private readonly replaced = new Set<Bytes>();

  constructor(
    private readonly writer: TarWriter,
    private readonly archive: Archive,
  ) {}

  change(
    kind: ChangeKind,
    path: Bytes,
    folder: number,
    name: Bytes,
    replaced: boolean,
  ): void {
    const above = path.slice(0, path.length - name.length);
    if (kind === ChangeKind.Deleted) {
      if (!this.replaced.has(above)) this.mark(`${above}${WHITEOUT}${name}`);
      return;
    }
    const isFolder = this.archive.addChanged(folder, name, path);
    if (isFolder && replaced) {
      this.replaced.add(`${path}/`);
      this.mark(`${path}/${OPAQUE}`);
    }
  }

  private mark(name: Bytes): void {
    this.writer.entry({ ...blankEntry(), name, mode: 0o600 });
  }
}
