/**
 * The templates on disk: machines that were booted once and saved, out of which others are restored. Each
 * is a folder `<platform>/<shape>` with the guest's memory, the state of the devices, and a header.
 *
 * A template is used only by what it was made by: the platform's key is a hash of all that its content
 * depends on, the host's boot included. Within one boot of the host, a memory file whose inode, size and
 * times of change are those in the header is the one that was saved: whoever writes to it changes the
 * times. So 86 MB need not be read again before each start.
 */
import { createHash } from "node:crypto";
import {
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  statfs,
  utimes,
  writeFile,
  type FileHandle,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { SystemError, Unavailable } from "../../errors.js";
import { faultPoint } from "../../fault.js";

/** Templates beyond so many go, those first that were not used for the longest time. */
const MOST_TEMPLATES = 8;

/**
 * So much room a template is not made without, in bytes: it takes some 90 MB, and QEMU, which writes to its
 * memory file as a guest writes to its memory, dies where the disk is full.
 */
const ROOM_BYTES = 128 * 1024 * 1024;

/** How the name of a folder ends that is no template yet. */
const DRAFT = ".draft";

const HEADER = "template.json";
const MEMORY = "memory";
const STATE = "state";

const identityShape = z.object({
  inode: z.string(),
  bytes: z.string(),
  modified: z.string(),
  changed: z.string(),
});

const headerShape = z.object({
  version: z.literal(1),
  platform: z.string(),
  shape: z.string(),
  created: z.string(),
  memory: identityShape,
  state: z.object({ bytes: z.number(), sha256: z.string() }),
});
type Header = z.infer<typeof headerShape>;

/** A template that was found whole, ready for one restore. */
export interface OpenTemplate {
  memoryFile: string;
  /** Open on the state of the devices. The receiver closes it. */
  state: FileHandle;
}

/** It is there, but cannot be used; the message says why. */
export class DamagedTemplate extends SystemError {}

/** A template that is being made, in a folder that is no template until `finish`. */
export interface TemplateDraft {
  memoryFile: string;
  stateFile: string;
  finish(state: Header["state"]): Promise<void>;
  abandon(): Promise<void>;
}

export class TemplateStore {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /**
   * @returns undefined when there is none
   * @throws {DamagedTemplate} there is one that must not be used
   */
  async open(
    platform: string,
    shape: string,
  ): Promise<OpenTemplate | undefined> {
    const folder = this.#folder(platform, shape);
    const text = await readFile(join(folder, HEADER), "utf8").catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") return undefined;
        throw new DamagedTemplate(error.message);
      },
    );
    if (text === undefined) return undefined;
    const header = parseHeader(text, platform, shape);
    await checkMemory(join(folder, MEMORY), header);
    const state = await openState(join(folder, STATE), header);
    void utimes(join(folder, HEADER), new Date(), new Date()).catch(
      () => undefined,
    );
    return { memoryFile: join(folder, MEMORY), state };
  }

  /**
   * Begins a template.
   * @throws {Unavailable} the disk is (nearly) full
   * @throws the system's error, e.g. that the folder is read-only
   */
  async draft(platform: string, shape: string): Promise<TemplateDraft> {
    const folder = this.#folder(platform, shape);
    const draft = folder + DRAFT;
    await rm(draft, { recursive: true, force: true });
    await mkdir(this.#root, { recursive: true, mode: 0o700 });
    // One by one: where the file system is read-only, a recursive mkdir would say that there is no such folder.
    for (const one of [dirname(draft), draft]) {
      await mkdir(one, { mode: 0o700 }).catch(
        (error: NodeJS.ErrnoException) => {
          if (error.code !== "EEXIST") throw error;
        },
      );
    }
    await checkRoom(draft);
    const memoryFile = join(draft, MEMORY);
    return {
      memoryFile,
      stateFile: join(draft, STATE),
      finish: async (state) => {
        await sync(memoryFile);
        const header: Header = {
          version: 1,
          platform,
          shape,
          created: new Date().toISOString(),
          memory: await identify(memoryFile),
          state,
        };
        await writeFile(join(draft, HEADER), JSON.stringify(header), {
          mode: 0o600,
        });
        faultPoint("template.described");
        await rm(folder, { recursive: true, force: true });
        await rename(draft, folder);
        await this.#tidy(platform);
      },
      abandon: () => rm(draft, { recursive: true, force: true }),
    };
  }

  async remove(platform: string, shape: string): Promise<void> {
    await rm(this.#folder(platform, shape), { recursive: true, force: true });
  }

  /** What a daemon that was killed while it made templates left of them. */
  async removeDrafts(): Promise<void> {
    const platforms = await readdir(this.#root).catch(() => []);
    for (const platform of platforms) {
      const folder = join(this.#root, platform);
      const names = await readdir(folder).catch(() => []);
      for (const name of names.filter((one) => one.endsWith(DRAFT))) {
        await rm(join(folder, name), { recursive: true, force: true });
      }
    }
  }

  #folder(platform: string, shape: string): string {
    return join(this.#root, platform, shape);
  }

  /** Removes what is of other platforms, or too much. A clone keeps the file that it has mapped. */
  async #tidy(platform: string): Promise<void> {
    for (const name of await readdir(this.#root)) {
      if (name === platform) continue;
      await rm(join(this.#root, name), { recursive: true, force: true });
    }
    const used = await Promise.all(
      (await readdir(join(this.#root, platform))).map(async (shape) => ({
        shape,
        at: await stat(join(this.#folder(platform, shape), HEADER)).then(
          ({ mtimeMs }) => mtimeMs,
          () => Infinity,
        ),
      })),
    );
    used.sort((a, b) => b.at - a.at);
    for (const { shape } of used.slice(MOST_TEMPLATES)) {
      await this.remove(platform, shape);
    }
  }
}

function parseHeader(text: string, platform: string, shape: string): Header {
  let header: Header;
  try {
    header = headerShape.parse(JSON.parse(text));
  } catch {
    throw new DamagedTemplate("its header is damaged or of another version");
  }
  if (header.platform !== platform || header.shape !== shape) {
    throw new DamagedTemplate("it was made for something else");
  }
  return header;
}

/** @throws {Unavailable} there is too little room for a template; then its folder is removed */
async function checkRoom(draft: string): Promise<void> {
  const { bavail, bsize } = await statfs(draft);
  if (bavail * bsize >= ROOM_BYTES) return;
  await rm(draft, { recursive: true, force: true });
  throw new Unavailable(
    `no space left on device: ${Math.floor((bavail * bsize) / 2 ** 20)} MiB are free, and it takes up to ${ROOM_BYTES / 2 ** 20} MiB`,
  );
}

async function checkMemory(file: string, { memory }: Header): Promise<void> {
  let found: Header["memory"];
  try {
    found = await identify(file);
  } catch (error) {
    throw new DamagedTemplate((error as Error).message);
  }
  if (found.bytes !== memory.bytes) {
    throw new DamagedTemplate(
      `its memory has ${found.bytes} bytes instead of ${memory.bytes}`,
    );
  }
  if (
    found.inode !== memory.inode ||
    found.modified !== memory.modified ||
    found.changed !== memory.changed
  ) {
    throw new DamagedTemplate("its memory was altered after it was made");
  }
}

async function openState(file: string, { state }: Header): Promise<FileHandle> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(file, "r");
    const { size } = await handle.stat();
    if (size !== state.bytes) {
      throw new DamagedTemplate(
        `the state of its devices has ${size} bytes instead of ${state.bytes}`,
      );
    }
    const content = Buffer.alloc(size);
    // By position: QEMU reads from where the descriptor stands.
    await handle.read(content, 0, size, 0);
    const sha256 = createHash("sha256").update(content).digest("hex");
    if (sha256 !== state.sha256) {
      throw new DamagedTemplate("the state of its devices was altered");
    }
    return handle;
  } catch (error) {
    await handle?.close();
    if (error instanceof DamagedTemplate) throw error;
    throw new DamagedTemplate((error as Error).message);
  }
}

async function identify(file: string): Promise<Header["memory"]> {
  const { ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true });
  return {
    inode: String(ino),
    bytes: String(size),
    modified: String(mtimeNs),
    changed: String(ctimeNs),
  };
}

/** What is still to be written would change the times later. */
async function sync(file: string): Promise<void> {
  const handle = await open(file, "r+");
  await handle.sync().finally(() => handle.close());
}
