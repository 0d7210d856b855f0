/**
 * The container's files as the Engine's copies see them: its root, volumes and the engine's own files,
 * without /proc, /sys and /dev. A process enters the view for good: it is its root then, so that no link
 * in it, whoever plants it and when, leads to anywhere else.
 */
import type { Setup } from "../../../protocol/index.js";
import { AT_FDCWD, CLONE_NEWNS, MS_BIND } from "../constants.js";
import { step } from "../failure.js";
import { inRoot } from "../in-root.js";
import { ROOT } from "../in-root.js";
import { unless } from "../sys.js";

const VIEW = "/run/view";

/** @param mounted whether volumes, tmpfs and the engine's files are seen, or what is below them */
export function enterView(setup: Setup, mounted: boolean): void {
  step("enter the container's files", () => {
    sys.unshare(CLONE_NEWNS);
    unless(["EEXIST"], () => sys.mkdir(AT_FDCWD, VIEW, 0o700));
    // Not recursive: what is mounted inside stays outside.
    sys.mount(ROOT, VIEW, null, MS_BIND, null);
    if (mounted)
      for (const path of [
        ...(setup.mounts ?? []).map(({ target }) => target),
        ...setup.files.map((file) => file.path),
      ])
        // The container may have removed the place.
        unless(["ENOENT", "ENOTDIR", "ELOOP"], () =>
          inRoot(ROOT, path, "error", (source) =>
            inRoot(VIEW, path, "error", (target) =>
              sys.mount(source, target, null, MS_BIND, null),
            ),
          ),
        );
    sys.chroot(VIEW);
    sys.chdir("/");
  });
}
