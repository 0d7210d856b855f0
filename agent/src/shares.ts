/**
 * Files and folders of the host. A process of the host serves them by 9P2000.L at a virtio-serial port;
 * all of them are mounted once, out of the container's sight, and each is bound to its place.
 *
 * - `cache=mmap`: mapped files work, shared writable ones too. The server says of every file that it is
 *   not to be cached, so that reads and writes are the server's: containers that share a folder see
 *   each other's at once.
 * - `access=user`: the server learns who makes a file.
 */
import { SHARE_PORT_NAME, type ShareSetup } from "../../protocol/index.js";
import { openPort } from "./boot.js";
import {
  AT_FDCWD,
  EPOLL_ADD,
  EPOLLHUP,
  EPOLLOUT,
  MNT_DETACH,
  MS_BIND,
  MS_RDONLY,
  MS_REMOUNT,
  S_IFDIR,
  S_IFMT,
} from "./constants.js";
import { copyTree } from "./copy-tree.js";
import { Failure, step } from "./failure.js";
import { makeFolder } from "./files.js";
import { inRoot, openInRoot, ROOT } from "./in-root.js";
import { unless } from "./sys.js";

const SHARES = "/run/shares";
/** Bytes of the largest message. Larger ones made copies of large files slower, not faster. */
const MESSAGE_SIZE = 256 * 1024;
const SERVER_TIMEOUT_MS = 10_000;

let mounted = false;

/** Puts a share in its place in the container's root. */
export function mountShare(share: ShareSetup): void {
  if (!Number.isInteger(share.share) || share.share < 0)
    throw new Failure("invalid", `no share ${share.share}`);
  step("mount the host's files", mountAll);
  const source = `${SHARES}/${share.share}`;
  step(`mount ${share.target}`, () => {
    const isFolder = isDirectory(source);
    if (share.populate && isFolder) populate(source, share.target);
    inRoot(ROOT, share.target, isFolder ? "directory" : "file", (target) =>
      sys.mount(source, target, null, MS_BIND, null),
    );
    if (!share.readonly) return;
    inRoot(ROOT, share.target, "error", (target) =>
      sys.mount(null, target, null, MS_REMOUNT | MS_BIND | MS_RDONLY, null),
    );
  });
}

/** Lets go of what the host serves; whatever was written is there by then. */
export function unmountShares(): void {
  if (mounted) sys.unmount(SHARES, MNT_DETACH);
  mounted = false;
}

function mountAll(): void {
  if (mounted) return;
  makeFolder(SHARES, 0o700);
  const port = openPort(SHARE_PORT_NAME);
  try {
    waitForServer(port);
    sys.mount(
      "hull",
      SHARES,
      "9p",
      0,
      `trans=fd,rfdno=${port},wfdno=${port},version=9p2000.L,msize=${MESSAGE_SIZE},access=user,cache=mmap`,
    );
  } finally {
    sys.close(port);
  }
  mounted = true;
}

/** Until the host has connected, the port is hung up. */
function waitForServer(port: number): void {
  const epoll = sys.epollCreate();
  const events = new ArrayBuffer(8);
  try {
    sys.epollControl(epoll, EPOLL_ADD, port, EPOLLOUT);
    for (let waited = 0; waited < SERVER_TIMEOUT_MS; waited++) {
      const count = sys.epollWait(epoll, events, 0);
      const state = count > 0 ? (new Uint32Array(events)[1] ?? 0) : EPOLLHUP;
      if ((state & EPOLLHUP) === 0) return;
      sys.sleep(1);
    }
  } finally {
    sys.close(epoll);
  }
  throw new Failure("system", "nobody serves the host's files");
}

/** An empty volume begins as what the image has in its place. */
function populate(source: string, target: string): void {
  if (sys.list(source).length > 0) return;
  const image = unless(["ENOENT", "ENOTDIR"], () =>
    openInRoot(ROOT, target, "error"),
  );
  if (image === undefined) return;
  try {
    const path = `/proc/self/fd/${image}`;
    if (isDirectory(path)) copyTree(path, source);
  } finally {
    sys.close(image);
  }
}

function isDirectory(path: string): boolean {
  return (sys.stat(AT_FDCWD, path, 0).mode & S_IFMT) === S_IFDIR;
}
