/** The images of the bench and the registry they are pulled from. */
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import {
  writeImage,
  type ImageFile,
  type WrittenImage,
} from "./image-layout.js";
import type { NetworkSpace } from "./network-space.js";
import { fileURLToPath } from "node:url";
import { Background, findProgram, run } from "./processes.js";
import type { Scratch } from "./scratch.js";
import { toolsLayers } from "./tools-image.js";

/** Where in the small image there are LINES_BYTES bytes of text. */
export const LINES_PATH = "/data/lines.txt";
export const LINES_BYTES = 8 * 1024 * 1024;
const ENV = ["PATH=/bin"];
const APPLETS =
  "sh true cat echo sleep head wc dd sync seq mkdir rm cp tar env uname wget".split(
    " ",
  );

/** The large image: a distribution's size, in as many layers as images tend to have. */
const LARGE_LAYERS = 5;
const LARGE_LAYER_BYTES = 40 * 1024 * 1024;
/** What it is made of: programs, libraries and texts of the machine, for a realistic compression. */
const LARGE_SOURCES = ["/usr/bin", "/usr/lib", "/usr/share"];

export interface Images {
  /** busybox, and a file of text to stream. */
  small: string;
  /** The program /marker, see instructions/marker.S. */
  marker: string;
  large: string;
  largeImage: WrittenImage;
  /** See tools-image.ts; made when it is asked for. @throws {Missing} a program is not installed */
  tools(): Promise<string>;
}

/** Makes both images and serves them from a registry until the end. */
export async function serveImages(
  scratch: Scratch,
  space: NetworkSpace,
): Promise<Images> {
  const registry = await startRegistry(scratch, space);
  const push = async (image: WrittenImage, name: string) => {
    const reference = `${registry}/${name}:1`;
    await run(
      space.command([
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        `oci:${image.directory}`,
        `docker://${reference}`,
      ]),
      { timeout: 300_000 },
    );
    return reference;
  };
  const small = await writeImage(
    await scratch.folder("image-small"),
    [busyboxLayer(), [{ path: LINES_PATH.slice(1), content: lines() }]],
    { Cmd: ["sh"], Env: ENV },
  );
  const largeImage = await writeImage(
    await scratch.folder("image-large"),
    largeLayers(),
    { Cmd: ["true"], Env: ENV },
  );
  const marker = await writeImage(
    await scratch.folder("image-marker"),
    [[{ path: "marker", content: await markerProgram(scratch), mode: 0o755 }]],
    { Cmd: ["/marker"], Env: ENV },
  );
  let tools: Promise<string> | undefined;
  return {
    tools: () =>
      (tools ??= (async () => {
        const image = await writeImage(
          await scratch.folder("image-tools"),
          [busyboxLayer(), ...(await toolsLayers())],
          { Cmd: ["sh"], Env: ["PATH=/usr/bin:/bin"] },
        );
        return push(image, "bench/tools");
      })()),
    small: await push(small, "bench/small"),
    marker: await push(marker, "bench/marker"),
    large: await push(largeImage, "bench/large"),
    largeImage,
  };
}

function busyboxLayer(): ImageFile[] {
  const busybox = findProgram("busybox");
  if (!busybox) {
    throw new Error("busybox is missing (busybox-static)");
  }
  return [
    { path: "bin/busybox", content: readFileSync(busybox), mode: 0o755 },
    ...APPLETS.map((name) => ({
      path: `bin/${name}`,
      content: { symlink: "busybox" },
    })),
    {
      path: "etc/passwd",
      content: Buffer.from("root:x:0:0:root:/:/bin/sh\n"),
    },
    { path: "etc/group", content: Buffer.from("root:x:0:\n") },
  ];
}

async function markerProgram(scratch: Scratch): Promise<Buffer> {
  const source = new URL("instructions/marker.S", import.meta.url);
  const program = join(scratch.directory, "marker");
  await run([
    ...["gcc", "-static", "-nostdlib", "-s", "-o", program],
    fileURLToPath(source),
  ]);
  return readFileSync(program);
}

/** Text as programs print it: lines of 100 characters, no two alike. */
function lines(): Buffer {
  const line = (number: number) =>
    `${String(number).padStart(8, "0")} ${"the quick brown fox jumps over the lazy dog; ".repeat(3)}`
      .slice(0, 99)
      .concat("\n");
  const text = Array.from({ length: Math.ceil(LINES_BYTES / 100) }, (_, i) =>
    line(i),
  ).join("");
  return Buffer.from(text.slice(0, LINES_BYTES - 1) + "\n");
}

function largeLayers(): ImageFile[][] {
  const layers: ImageFile[][] = [[]];
  let bytes = 0;
  for (const path of files(LARGE_SOURCES)) {
    const size = statSync(path).size;
    if (size > LARGE_LAYER_BYTES / 4) {
      continue;
    }
    if (bytes + size > LARGE_LAYER_BYTES) {
      if (layers.length === LARGE_LAYERS) {
        break;
      }
      layers.push([]);
      bytes = 0;
    }
    layers.at(-1)?.push({ path: path.slice(1), content: readFileSync(path) });
    bytes += size;
  }
  return layers;
}

/** Every plain file below the folders, a few of each folder in turn, always in the same order. */
function* files(folders: readonly string[]): Generator<string> {
  const walks = folders.map((folder) => walk(folder));
  while (walks.length > 0) {
    for (const each of [...walks]) {
      for (let count = 0; count < 50; count++) {
        const next = each.next();
        if (next.done) {
          walks.splice(walks.indexOf(each), 1);
          break;
        }
        yield next.value;
      }
    }
  }
}

function* walk(folder: string): Generator<string> {
  const entries = readdirSync(folder, { withFileTypes: true }).sort((a, b) =>
    a.name < b.name ? -1 : 1,
  );
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      yield* walk(path);
    } else if (entry.isFile()) {
      yield path;
    }
  }
}

/** @returns its host and port */
async function startRegistry(
  scratch: Scratch,
  space: NetworkSpace,
): Promise<string> {
  const directory = await scratch.folder("registry");
  const address = `127.0.0.1:${await freePort()}`;
  const config = join(directory, "config.yml");
  writeFileSync(
    config,
    JSON.stringify({
      version: 0.1,
      log: { level: "warn", accesslog: { disabled: true } },
      storage: { filesystem: { rootdirectory: join(directory, "data") } },
      http: { addr: address },
    }),
  );
  const registry = new Background(
    space.command(["docker-registry", "serve", config]),
    join(directory, "log"),
  );
  scratch.atEnd("the registry", () => registry.stop());
  await registry.ready(() =>
    run(
      space.command([
        "skopeo",
        "list-tags",
        "--tls-verify=false",
        `docker://${address}/none`,
      ]),
    ).catch((error: unknown) => {
      // An unknown repository is an answer.
      if (!/404/.test(String(error))) {
        throw error;
      }
    }),
  );
  return address;
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() =>
        resolve(typeof address === "object" && address ? address.port : 0),
      );
    });
  });
}
