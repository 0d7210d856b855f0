import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmod,
  lstat,
  readdir,
  readFile,
  stat,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { gzipSync } from "node:zlib";
import { SystemError, Unavailable } from "../../errors.js";
import { type Digest, digestOf } from "../digest.js";
import { Erofs, EROFS_BLOCK, sealErofs } from "./erofs.js";
import { DEFAULT_LIMITS } from "./layer-filter.js";
import { tar, type TestEntry } from "./test-tar.js";
import {
  MKFS_CANDIDATES,
  mounted,
  noErofs,
  temporaryFolder,
} from "./test-erofs.js";
import { unpackLayer, type UnpackedLayer } from "./unpack.js";

interface Attempt {
  blob: Buffer;
  diffId: Digest;
  erofs?: Erofs;
  signal?: AbortSignal;
  onProgress?: (bytes: number) => void;
}

async function unpack(
  folder: string,
  name: string,
  attempt: Attempt,
): Promise<UnpackedLayer> {
  const blob = join(folder, `${name}.blob`);
  await writeFile(blob, attempt.blob);
  return unpackLayer(attempt.erofs ?? (await Erofs.find(MKFS_CANDIDATES)), {
    blob,
    diffId: attempt.diffId,
    output: join(folder, `${name}.erofs`),
    temporary: folder,
    limits: DEFAULT_LIMITS,
    signal: attempt.signal ?? new AbortController().signal,
    onProgress: attempt.onProgress ?? (() => {}),
  });
}

/** Unpacks layers, joins them and lists what a guest sees, if this host lets us. */
async function tree(
  t: TestContext,
  ...layers: TestEntry[][]
): Promise<Map<string, string> | undefined> {
  const folder = await temporaryFolder(t);
  const erofs = await Erofs.find(MKFS_CANDIDATES);
  const parts: { path: string; bytes: number }[] = [];
  for (const [index, entries] of layers.entries()) {
    const archive = tar(...entries);
    const { bytes } = await unpack(folder, `${index}`, {
      blob: archive,
      diffId: digestOf(archive),
    });
    parts.push({ path: join(folder, `${index}.erofs`), bytes });
  }
  const merged = join(folder, "merged");
  await erofs.merge(
    merged,
    parts.map(({ path }) => path),
  );
  const disk = {
    readonly: true,
    parts: [{ path: merged, bytes: await sealErofs(merged) }, ...parts],
  };
  return mounted(t, disk, async (root) => {
    const seen = new Map<string, string>();
    for (const name of await readdir(root, { recursive: true })) {
      const info = await lstat(join(root, name));
      seen.set(
        name,
        info.isFile() ? await readFile(join(root, name), "latin1") : "",
      );
    }
    return seen;
  });
}

describe("unpackLayer", { skip: noErofs }, () => {
  const archive = tar(
    { name: "etc", type: "5" },
    { name: "etc/a", data: "a".repeat(10_000) },
    { name: "etc/b", type: "1", link: "etc/a" },
  );

  for (const [compression, compress] of Object.entries({
    none: (bytes: Buffer) => bytes,
    gzip: (bytes: Buffer) => gzipSync(bytes),
    "gzip in two members": (bytes: Buffer) =>
      Buffer.concat([
        gzipSync(bytes.subarray(0, 700)),
        gzipSync(bytes.subarray(700)),
      ]),
    zstd: (bytes: Buffer) =>
      execFileSync("zstd", ["-c", "-q"], { input: bytes }),
  })) {
    it(`unpacks a layer compressed with ${compression}`, async (t) => {
      const folder = await temporaryFolder(t);
      const blob = compress(archive);
      let read = 0;
      const layer = await unpack(folder, "l", {
        blob,
        diffId: digestOf(archive),
        onProgress: (bytes) => (read = bytes),
      });
      assert.equal(layer.contentBytes, 10_000);
      assert.equal(layer.opaqueRoot, false);
      assert.equal(layer.bytes % EROFS_BLOCK, 0);
      const { size } = await stat(join(folder, "l.erofs"));
      assert.equal(size, layer.bytes);
      assert.equal(read, blob.length);
    });
  }

  it("refuses a layer that is not what the config promises, leaving nothing", async (t) => {
    const folder = await temporaryFolder(t);
    await assert.rejects(
      unpack(folder, "l", { blob: archive, diffId: digestOf(Buffer.from("")) }),
      new SystemError(
        "failed to register layer: layers from manifest don't match image configuration",
      ),
    );
    assert.deepEqual(await readdir(folder), ["l.blob"]);
  });

  it("refuses damaged and cut compression, leaving nothing", async (t) => {
    const folder = await temporaryFolder(t);
    const gzip = gzipSync(archive);
    const damaged = Buffer.from(gzip);
    damaged.fill(0xff, 20, 30);
    const zstd = execFileSync("zstd", ["-c", "-q"], { input: archive });
    for (const blob of [damaged, gzip.subarray(0, 60), zstd.subarray(0, 40)]) {
      await assert.rejects(
        unpack(folder, "l", { blob, diffId: digestOf(archive) }),
        /^SystemError: failed to register layer: /,
      );
    }
    assert.deepEqual(await readdir(folder), ["l.blob"]);
  });

  it("unpacks layers compressed with bzip2 and xz, and says what is wrong with them", async (t) => {
    const folder = await temporaryFolder(t);
    const diffId = digestOf(archive);
    for (const program of ["bzip2", "xz"]) {
      const blob = execFileSync(program, ["-c"], { input: archive });
      await unpack(folder, program, { blob, diffId });
      await assert.rejects(
        unpack(folder, "l", { blob: blob.subarray(0, 40), diffId }),
        /failed to register layer: /,
      );
    }
  });

  it("tells what the archive did wrong rather than what followed from it", async (t) => {
    const folder = await temporaryFolder(t);
    const hostile = tar({ name: "../../etc/passwd", data: "x" });
    await assert.rejects(
      unpack(folder, "l", { blob: hostile, diffId: digestOf(hostile) }),
      /failed to register layer: ".*passwd" is outside of the layer/,
    );
  });

  it("tells what the file system maker did wrong", async (t) => {
    const folder = await temporaryFolder(t);
    const script = join(folder, "mkfs");
    await writeFile(script, "#!/bin/sh\necho no space >&2\nexit 3\n");
    await chmod(script, 0o755);
    await assert.rejects(
      unpack(folder, "l", {
        blob: archive,
        diffId: digestOf(archive),
        erofs: new Erofs(script, "1.8"),
      }),
      /failed to register layer: mkfs exited with 3: no space/,
    );
    await writeFile(script, "#!/bin/sh\ncat >/dev/null; echo oh no >&2\n");
    await assert.rejects(
      unpack(folder, "l", {
        blob: archive,
        diffId: digestOf(archive),
        erofs: new Erofs(script, "1.8"),
      }),
      /failed to register layer: mkfs failed: oh no/,
    );
    await assert.rejects(
      unpack(folder, "l", {
        blob: archive,
        diffId: digestOf(archive),
        erofs: new Erofs(join(folder, "missing"), "1.8"),
      }),
      /cannot start .*missing/,
    );
  });

  it("stops when it is no longer wanted, leaving nothing", async (t) => {
    const folder = await temporaryFolder(t);
    const large = tar({ name: "large", data: Buffer.alloc(20_000_000) });
    const gone = new AbortController();
    await assert.rejects(
      unpack(folder, "l", {
        blob: large,
        diffId: digestOf(large),
        signal: gone.signal,
        onProgress: (bytes) => {
          if (bytes > 1_000_000) gone.abort(new Error("client gone"));
        },
      }),
      /client gone/,
    );
    assert.deepEqual(await readdir(folder), ["l.blob"]);
  });
});

describe("merged layers, as a guest sees them", { skip: noErofs }, () => {
  it("have whiteouts and opaque directories resolved", async (t) => {
    const seen = await tree(
      t,
      [
        { name: "gone", type: "5" },
        { name: "gone/x", data: "1" },
        { name: "opaque/lower", data: "1" },
        { name: "removed/old", data: "1" },
        { name: "replaced/old", data: "1" },
        { name: "kept", data: "lower" },
        { name: "changed", data: "lower" },
        { name: "tofile/x", data: "1" },
        { name: "todir", data: "1" },
      ],
      [
        { name: ".wh.gone" },
        { name: "opaque/.wh..wh..opq" },
        { name: "opaque", type: "5" },
        { name: "opaque/new", data: "2" },
        { name: ".wh.removed" },
        { name: "removed/new", data: "2" },
        { name: "replaced", type: "5" },
        { name: "replaced/new", data: "2" },
        { name: ".wh.replaced" },
        { name: "changed", data: "upper" },
        { name: "tofile", data: "2" },
        { name: "todir/y", data: "2" },
        { name: "whitefile", data: "1" },
        { name: ".wh.whitefile" },
      ],
      [],
    );
    if (seen === undefined) return;
    assert.deepEqual([...seen].sort(), [
      ["changed", "upper"],
      ["kept", "lower"],
      ["opaque", ""],
      ["opaque/new", "2"],
      ["removed", ""],
      ["removed/new", "2"],
      ["replaced", ""],
      ["replaced/new", "2"],
      ["todir", ""],
      ["todir/y", "2"],
      ["tofile", "2"],
      ["whitefile", "1"],
    ]);
  });

  it("have the last of what a layer brings twice", async (t) => {
    const seen = await tree(t, [
      { name: "a", data: "first" },
      { name: "linked", type: "1", link: "a" },
      { name: "a", data: "second" },
      { name: "a", type: "1", link: "linked" },
      { name: "b", data: "1" },
      { name: "b", type: "5" },
      { name: "b/c", data: "2" },
      { name: "s", type: "2", link: "nowhere" },
      { name: "s", data: "3" },
      { name: "d", type: "3", device: [1, 3] },
      { name: "d", data: "4" },
    ]);
    if (seen === undefined) return;
    assert.deepEqual([...seen].sort(), [
      ["a", "first"],
      ["b", ""],
      ["b/c", "2"],
      ["d", "4"],
      ["linked", "first"],
      ["s", "3"],
    ]);
  });

  it("may have nothing in them", async (t) => {
    const seen = await tree(t, [], []);
    if (seen !== undefined) assert.deepEqual([...seen], []);
  });
});

describe("Erofs.find", () => {
  it("says what it tried", async (t) => {
    const folder = await temporaryFolder(t);
    const old = join(folder, "old");
    await writeFile(old, "#!/bin/sh\necho mkfs.erofs 1.5\n");
    await chmod(old, 0o755);
    await assert.rejects(Erofs.find([join(folder, "none"), old]), (error) => {
      assert.ok(error instanceof Unavailable);
      assert.match(error.message, /mkfs\.erofs 1\.8 or later is needed/);
      assert.match(error.message, /none: not found/);
      assert.match(error.message, /old is version 1\.5/);
      return true;
    });
  });
});
