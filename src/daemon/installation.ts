/** Where hull itself lies and what it is. */
import { existsSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { z } from "zod";

/** What was built, for `docker version`. */
export interface BuildInfo {
  version: string;
  /** Short commit, or "unknown" outside of a checkout. */
  commit: string;
  /** RFC 3339. */
  builtAt: string;
}

/** The folder that holds package.json, wherever below it this module runs from. */
export const INSTALLATION = findRoot(import.meta.dirname);

/** Paths of what `make build` makes. */
export const PRODUCTS = {
  kernel: path.join(INSTALLATION, "build/vmlinux"),
  initramfs: path.join(INSTALLATION, "build/initramfs.cpio"),
  rehearsal: path.join(INSTALLATION, "build/rehearsal.erofs"),
  shareServer: path.join(INSTALLATION, "build/hull-share"),
  /** What machines are started by, see jail/build. */
  jail: {
    launcher: path.join(INSTALLATION, "build/hull-jail"),
    preload: path.join(INSTALLATION, "build/hull-descriptors.so"),
    send: path.join(INSTALLATION, "build/hull-send.node"),
  },
  tools: path.join(INSTALLATION, "build/tools"),
};

export function buildInfo(): BuildInfo {
  const { version } = z
    .object({ version: z.string() })
    .parse(
      JSON.parse(readFileSync(path.join(INSTALLATION, "package.json"), "utf8")),
    );
  return {
    version,
    commit: checkedOutCommit() ?? "unknown",
    builtAt: statSync(import.meta.filename).mtime.toISOString(),
  };
}

function findRoot(from: string): string {
  if (existsSync(path.join(from, "package.json"))) return from;
  const parent = path.dirname(from);
  if (parent === from) throw new Error("hull's package.json is missing");
  return findRoot(parent);
}

function checkedOutCommit(): string | undefined {
  const git = path.join(INSTALLATION, ".git");
  try {
    const head = readFileSync(path.join(git, "HEAD"), "utf8").trim();
    const reference = /^ref: (.+)$/.exec(head)?.[1];
    const commit =
      reference === undefined
        ? head
        : readFileSync(path.join(git, reference), "utf8").trim();
    return /^[0-9a-f]{40}$/.test(commit) ? commit.slice(0, 7) : undefined;
  } catch {
    return undefined;
  }
}
