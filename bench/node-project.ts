/** A small Node.js project whose packages are archives beside it: `npm ci` installs it without a network. */
import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { gzipSync } from "node:zlib";
import tar from "tar-stream";

/** Few and small enough for a guest without KVM. */
export const PACKAGES = 20;
const FILES = 12;
const FILE_BYTES = 4000;

/** Writes package.json, package-lock.json and the archives into a folder. */
export async function writeNodeProject(folder: string): Promise<void> {
  await mkdir(join(folder, "archives"), { recursive: true });
  const dependencies: Record<string, string> = {};
  const packages: Record<string, object> = {};
  for (let number = 0; number < PACKAGES; number++) {
    const name = `part-${number}`;
    const archive = gzipSync(await packPackage(name));
    const source = `file:archives/${name}.tgz`;
    await writeFile(join(folder, "archives", `${name}.tgz`), archive);
    dependencies[name] = source;
    packages[`node_modules/${name}`] = {
      version: "1.0.0",
      resolved: source,
      integrity: `sha512-${createHash("sha512").update(archive).digest("base64")}`,
    };
  }
  const project = { name: "bench", version: "1.0.0" };
  await writeFile(
    join(folder, "package.json"),
    JSON.stringify({ ...project, dependencies }),
  );
  await writeFile(
    join(folder, "package-lock.json"),
    JSON.stringify({
      ...project,
      lockfileVersion: 3,
      requires: true,
      packages: { "": { ...project, dependencies }, ...packages },
    }),
  );
}

async function packPackage(name: string): Promise<Buffer> {
  const pack = tar.pack();
  const packed = buffer(pack);
  const manifest = { name, version: "1.0.0", main: "lib/0.js" };
  pack.entry({ name: "package/package.json" }, JSON.stringify(manifest));
  for (let number = 0; number < FILES; number++) {
    const line = `exports.${name.replace("-", "_")}_${number} = () => ${number};\n`;
    pack.entry(
      { name: `package/lib/${number}.js` },
      line.repeat(Math.ceil(FILE_BYTES / line.length)),
    );
  }
  pack.finalize();
  return packed;
}
