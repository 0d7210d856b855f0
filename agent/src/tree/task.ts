/**
 * Work on the container's files, done by a copy of the agent so that it may block and so that the
 * container's root can be its own. Its archive goes through stdin or stdout; it says over a pipe that it
 * has begun, or why it cannot.
 */
import type {
  AgentError,
  FileTask,
  PathStat,
} from "../../../protocol/index.js";
import { RLIMIT_NOFILE } from "../constants.js";
import type { Container } from "../container.js";
import { Failure, describe, toAgentError } from "../failure.js";
import { writeAll } from "../files.js";
import { MOUNT_POINTS } from "../rootfs.js";
import type { Bytes } from "../sys.js";
import { resolveUser } from "../users.js";
import { readUserFiles } from "../user-files.js";
import { Archive } from "./archive.js";
import { visitChanges } from "./changes.js";
import { extract, openTarget } from "./extract.js";
import { LayerPacker } from "./layer.js";
import { enginePath, toBytes } from "./names.js";
import { pathStat } from "./status.js";
import { TarReader } from "./tar-reader.js";
import { TarWriter } from "./tar-writer.js";
import { enterView } from "./view.js";

/** Each folder on the way down is open. */
const MAX_OPEN = 16 * 1024;
const REPORT = 3;

/** What a task answers when it begins. */
export interface Begun {
  stat?: PathStat;
}

/** @param stdio for descriptors 0 to 2, -1 for one that is not there; all others are closed */
export function runTask(
  task: FileTask,
  container: Container,
  stdio: [number, number, number],
  report: number,
): never {
  let begun = false;
  const begin = (answer: Begun) => {
    begun = true;
    say({ begun: answer });
  };
  try {
    takeDescriptors(stdio, report);
    perform(task, container, begin);
  } catch (error) {
    if (begun) writeAll(2, sys.encode(wordsOf(error)));
    else say(toAgentError(error));
    sys.exit(error instanceof Failure && error.code === "invalid" ? 2 : 1);
  }
  sys.exit(0);
}

function takeDescriptors(
  stdio: [number, number, number],
  report: number,
): void {
  // Out of the way first: none may be overwritten before it has its place.
  const safe = [...stdio, report].map((fd) =>
    fd < 0 ? -1 : sys.duplicateAbove(fd, 64),
  );
  safe.forEach((fd, place) => {
    if (fd >= 0) sys.dup(fd, place);
  });
  sys.closeRange(REPORT + 1, -1);
  sys.setrlimit(RLIMIT_NOFILE, MAX_OPEN, MAX_OPEN);
}

function say(answer: AgentError | { begun: Begun }): void {
  writeAll(REPORT, sys.encode(JSON.stringify(answer)));
  sys.close(REPORT);
}

function wordsOf(error: unknown): string {
  return error instanceof Failure ? error.message : describe(error);
}

function perform(
  task: FileTask,
  { setup }: Container,
  begin: (answer: Begun) => void,
): void {
  switch (task.do) {
    case "stat": {
      enterView(setup, true);
      begin({ stat: pathStat(enginePath(toBytes(task.path))) });
      return;
    }
    case "archive": {
      enterView(setup, true);
      const path = enginePath(toBytes(task.path));
      begin({ stat: pathStat(path) });
      write((_, archive) => archive.path(path));
      return;
    }
    case "extract": {
      enterView(setup, true);
      const target = openTarget(
        enginePath(toBytes(task.path)),
        setup.rootfs?.readonly ?? false,
      );
      const owner = task.owner === "" ? undefined : ownerOf(task.owner);
      begin({});
      extract(new TarReader(0), target, {
        keepKinds: task.keepKinds,
        ...(owner ? { owner } : {}),
      });
      return;
    }
    case "export": {
      enterView(setup, false);
      begin({});
      write((_, archive) => archive.root());
      return;
    }
    case "changes": {
      begin({});
      const lines = new Lines();
      visitChanges(enginesOwn(setup), {
        change: (kind, path) => lines.put(`${kind}/${path}\0`),
      });
      lines.flush();
      return;
    }
    case "layer": {
      begin({});
      write((writer, archive) =>
        visitChanges(enginesOwn(setup), new LayerPacker(writer, archive)),
      );
      return;
    }
  }
}

function write(fill: (writer: TarWriter, archive: Archive) => void): void {
  const writer = new TarWriter(1);
  fill(writer, new Archive(writer));
  writer.finish();
}

/** Paths that are there for the engine: its files, and the places of what it mounts. */
function enginesOwn(setup: Container["setup"]): Set<Bytes> {
  return new Set(
    [...MOUNT_POINTS, ...setup.files.map(({ path }) => path)].map((path) =>
      toBytes(path.slice(1)),
    ),
  );
}

function ownerOf(user: string): { uid: number; gid: number } {
  return resolveUser(user, [], readUserFiles());
}

/** Collects short texts for stdout. */
class Lines {
  private text: Bytes = "";

  put(line: Bytes): void {
    this.text += line;
    if (this.text.length >= 32 * 1024) this.flush();
  }

  flush(): void {
    const bytes = new ArrayBuffer(this.text.length);
    writeAll(1, bytes, 0, sys.textToBytes(this.text, bytes, 0));
    this.text = "";
  }
}
