import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { describe, it } from "node:test";
import { extract, type Header } from "tar-stream";
import {
  DEFAULT_LIMITS,
  LayerFilter,
  type LayerLimits,
} from "./layer-filter.js";
import { TarError } from "./tar-header.js";
import { tar, tarEntry, type TestEntry } from "./test-tar.js";

interface Seen {
  name: string;
  type: string;
  header: Header;
  data: string;
}

/** An option that is missing from tar-stream's types. */
const LATIN1 = { filenameEncoding: "latin1" } as object;

/** Runs a layer through the filter, in pieces of that many bytes, and reads the outcome with tar-stream. */
async function filter(
  archive: Buffer,
  limits: Partial<LayerLimits> = {},
  piece = 10_000,
): Promise<{ entries: Seen[]; filter: LayerFilter; output: Buffer }> {
  const layer = new LayerFilter({ ...DEFAULT_LIMITS, ...limits });
  const pieces: Buffer[] = [];
  for (let i = 0; i < archive.length; i += piece) {
    pieces.push(archive.subarray(i, i + piece));
  }
  const chunks: Buffer[] = [];
  await pipeline(Readable.from(pieces), layer, async (source) => {
    for await (const chunk of source) chunks.push(chunk as Buffer);
  });
  const output = Buffer.concat(chunks);
  const entries: Seen[] = [];
  const reader = extract(LATIN1);
  reader.on("entry", (header, stream, next) => {
    let data = "";
    stream.on("data", (chunk) => {
      data += (chunk as Buffer).toString("latin1");
    });
    stream.on("end", () => {
      const { name, type } = header;
      entries.push({
        name: name.replace(/\/$/, ""),
        type: type ?? "",
        header,
        data,
      });
      next();
    });
  });
  await pipeline(Readable.from([output]), reader);
  return { entries, filter: layer, output };
}

async function names(...entries: TestEntry[]): Promise<string[]> {
  return (await filter(tar(...entries))).entries.map(({ name }) => name);
}

async function refused(
  message: RegExp,
  archive: Buffer,
  limits: Partial<LayerLimits> = {},
): Promise<void> {
  await assert.rejects(filter(archive, limits), (error) => {
    assert.ok(error instanceof TarError, String(error));
    assert.match(error.message, message);
    return true;
  });
}

/** So that damage gets past the first check. */
function repairChecksum(block: Buffer): void {
  block.write("        ", 148, "latin1");
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
}

describe("LayerFilter", () => {
  it("keeps contents, modes, owners and times", async () => {
    const { entries, filter: layer } = await filter(
      tar(
        { name: "bin/", type: "5", mode: 0o711, uid: 1, gid: 2 },
        { name: "bin/su", data: "setuid", mode: 0o4755, mtime: 7 },
        { name: "empty" },
      ),
    );
    const [bin, su, empty] = entries;
    assert.deepEqual(
      [bin?.type, bin?.header.mode, bin?.header.uid, bin?.header.gid],
      ["directory", 0o711, 1, 2],
    );
    assert.equal(su?.data, "setuid");
    assert.equal(su?.header.mode, 0o4755);
    assert.equal(su?.header.mtime?.getTime(), 7000);
    assert.equal(empty?.data, "");
    assert.equal(layer.contentBytes, 6);
    assert.equal(layer.entries, 3);
  });

  it("gives the same result however the archive arrives in pieces", async () => {
    const archive = tar(
      { name: "a", data: "x".repeat(700) },
      {
        name: "p".repeat(150),
        data: "y",
        pax: { path: "q".repeat(300).replace(/(.{60})/g, "$1/") },
      },
      { name: "link", type: "1", link: "a" },
    );
    const whole = await filter(archive);
    for (const piece of [1, 511, 513]) {
      const pieces = await filter(archive, {}, piece);
      assert.ok(pieces.output.equals(whole.output), `pieces of ${piece}`);
    }
  });

  it("reads an archive that ends without blocks of zeros", async () => {
    const { entries } = await filter(tarEntry({ name: "a", data: "1" }));
    assert.equal(entries.length, 1);
  });

  it("ignores what follows the end of the archive", async () => {
    const archive = Buffer.concat([
      tar({ name: "a" }),
      Buffer.alloc(700, "junk"),
    ]);
    assert.deepEqual(
      (await filter(archive)).entries.map(({ name }) => name),
      ["a"],
    );
  });

  it("takes an empty layer", async () => {
    assert.deepEqual((await filter(tar())).entries, []);
    assert.deepEqual((await filter(Buffer.alloc(0))).entries, []);
  });

  describe("names", () => {
    it("makes them relative and canonical", async () => {
      assert.deepEqual(
        await names(
          { name: "./", type: "5" },
          { name: "/etc", type: "5" },
          { name: "./etc//a/../passwd", data: "x" },
          { name: "etc/./group" },
        ),
        [".", "etc", "etc/passwd", "etc/group"],
      );
    });

    it("makes the directories a layer leaves out", async () => {
      const { entries } = await filter(tar({ name: "a/b/c", data: "1" }));
      assert.deepEqual(
        entries.map(({ name, type, header }) => [name, type, header.mode]),
        [
          ["a", "directory", 0o755],
          ["a/b", "directory", 0o755],
          ["a/b/c", "file", 0o644],
        ],
      );
    });

    for (const name of ["..", "../x", "a/../../x", "/../x", "./../x"]) {
      it(`refuses ${name}`, () =>
        refused(/outside of the layer/, tar({ name, data: "x" })));
    }

    it("keeps bytes that are not UTF-8", async () => {
      const odd = "caf\xe9\xff\x01\n";
      assert.deepEqual(await names({ name: odd }), [odd]);
      const long = `${"\xe9".repeat(120)}`;
      const { output } = await filter(tar({ name: "x", pax: { path: long } }));
      assert.ok(output.includes(Buffer.from(` path=${long}\n`, "latin1")));
    });

    it("reads GNU long names and links", async () => {
      const long = "n".repeat(90) + "/" + "m".repeat(90);
      const { entries } = await filter(
        Buffer.concat([
          tarEntry({ name: "target", data: "x" }),
          tarEntry({
            name: "././@LongLink",
            type: "L",
            data: `${long}\0`,
            magic: "ustar  \0",
          }),
          tarEntry({
            name: "././@LongLink",
            type: "K",
            data: `/${"s".repeat(200)}\0`,
            magic: "ustar  \0",
          }),
          tar({ name: "short", type: "2", link: "short", magic: "ustar  \0" }),
        ]),
      );
      const link = entries.at(-1);
      assert.equal(link?.name, long);
      assert.equal(link?.header.linkname, `/${"s".repeat(200)}`);
      assert.equal(link?.header.mode, 0o777);
    });

    it("refuses zero bytes, too long names and too deep trees", async () => {
      await refused(/zero byte/, tar({ name: "x", pax: { path: "a\0b" } }));
      await refused(
        /too long/,
        tar({ name: "x", pax: { path: "a".repeat(256) } }),
      );
      await refused(
        /too long/,
        tar({ name: "x", pax: { path: "a/".repeat(2500) } }),
      );
      await refused(
        /nested/,
        tar({ name: "x", pax: { path: "a/".repeat(300) + "b" } }),
      );
    });
  });

  describe("links", () => {
    it("keeps hard links to files of the layer, with canonical targets", async () => {
      const { entries } = await filter(
        tar(
          { name: "d/a", data: "1" },
          { name: "b", type: "1", link: "/x/../d/./a" },
        ),
      );
      assert.deepEqual(
        entries
          .map(({ name, type, header }) => [name, type, header.linkname])
          .at(-1),
        ["b", "link", "d/a"],
      );
    });

    it("refuses hard links to what the layer did not bring", async () => {
      await refused(
        /not a file of this layer/,
        tar({ name: "b", type: "1", link: "etc/shadow" }),
      );
      await refused(
        /outside of the layer/,
        tar({ name: "b", type: "1", link: "../../etc/shadow" }),
      );
      await refused(
        /not a file/,
        tar({ name: "d", type: "5" }, { name: "b", type: "1", link: "d" }),
      );
      await refused(/not a file/, tar({ name: "b", type: "1", link: "/" }));
      await refused(
        /not a file/,
        tar({ name: ".wh.a" }, { name: "b", type: "1", link: "a" }),
      );
    });

    it("leaves out a hard link to itself", async () => {
      assert.deepEqual(
        await names(
          { name: "a", data: "1" },
          { name: "a", type: "1", link: "./a" },
        ),
        ["a"],
      );
    });

    it("follows symbolic links of the layer only within the layer", async () => {
      assert.deepEqual(
        await names(
          { name: "lib", type: "2", link: "usr/lib" },
          { name: "up", type: "2", link: "../../../../etc" },
          { name: "abs", type: "2", link: "/etc" },
          { name: "lib/x" },
          { name: "up/passwd" },
          { name: "abs/group" },
        ),
        [
          "lib",
          "up",
          "abs",
          "usr",
          "usr/lib",
          "usr/lib/x",
          "etc",
          "etc/passwd",
          "etc/group",
        ],
      );
    });

    it("refuses symbolic links in a circle", () =>
      refused(
        /too many symbolic links/,
        tar(
          { name: "a", type: "2", link: "b" },
          { name: "b", type: "2", link: "a" },
          { name: "a/x" },
        ),
      ));

    it("refuses a path through a file", () =>
      refused(
        /not a directory/,
        tar({ name: "a", data: "1" }, { name: "a/b" }),
      ));
  });

  describe("whiteouts", () => {
    it("keeps them", async () => {
      assert.deepEqual(await names({ name: "d/.wh.gone" }), [
        "d",
        "d/.wh.gone",
      ]);
    });

    it("keeps opaque marks, once", async () => {
      assert.deepEqual(
        await names(
          { name: "d", type: "5" },
          { name: "d/.wh..wh..opq" },
          { name: "d/.wh..wh..opq" },
        ),
        ["d", "d/.wh..wh..opq"],
      );
    });

    it("notes an opaque root", async () => {
      const { filter: layer, entries } = await filter(
        tar({ name: "./.wh..wh..opq" }, { name: "a" }),
      );
      assert.equal(layer.opaqueRoot, true);
      assert.deepEqual(
        entries.map(({ name }) => name),
        ["a"],
      );
    });

    it("never hide what the same layer brings", async () => {
      assert.deepEqual(
        await names({ name: "f", data: "1" }, { name: ".wh.f" }),
        ["f"],
      );
      assert.deepEqual(await names({ name: ".wh.f" }, { name: "f" }), [
        ".wh.f",
        "f",
      ]);
    });

    it("make a directory that is removed and brought anew opaque", async () => {
      assert.deepEqual(
        await names(
          { name: "d", type: "5" },
          { name: "d/x" },
          { name: ".wh.d" },
        ),
        ["d", "d/x", "d/.wh..wh..opq"],
      );
      assert.deepEqual(
        await names({ name: ".wh.d" }, { name: "d", type: "5" }),
        [".wh.d", "d", "d/.wh..wh..opq"],
      );
      assert.deepEqual(await names({ name: ".wh.d" }, { name: "d/x" }), [
        ".wh.d",
        "d",
        "d/.wh..wh..opq",
        "d/x",
      ]);
    });

    it("may be written as overlayfs has them", async () => {
      assert.deepEqual(
        await names({ name: "gone", type: "3", device: [0, 0] }),
        [".wh.gone"],
      );
    });

    for (const name of [".wh.", "a/.wh.", ".wh..", ".wh..."]) {
      it(`refuses ${name}`, () => refused(/invalid whiteout/, tar({ name })));
    }

    it("refuses a whiteout as a directory", () =>
      refused(/a whiteout is no directory/, tar({ name: ".wh.d/x" })));

    it("leaves out what AUFS kept for itself", async () => {
      assert.deepEqual(
        await names(
          { name: ".wh..wh.plnk/1.2" },
          { name: ".wh..wh.aufs" },
          { name: "a" },
        ),
        ["a"],
      );
    });
  });

  describe("attributes", () => {
    it("keeps binary extended attributes byte for byte", async () => {
      const capability = Buffer.from(
        "0100000200200000000000000000000000000000",
        "hex",
      ).toString("latin1");
      const { output } = await filter(
        tar({
          name: "ping",
          pax: {
            "SCHILY.xattr.security.capability": capability,
            "SCHILY.xattr.user.a=b": "c\nd=\xff",
          },
        }),
      );
      assert.ok(
        output.includes(
          Buffer.from(
            ` SCHILY.xattr.security.capability=${capability}\n`,
            "latin1",
          ),
        ),
      );
    });

    it("drops overlayfs's own and unknown ones", async () => {
      const { output } = await filter(
        tar({
          name: "d",
          type: "5",
          pax: {
            "SCHILY.xattr.trusted.overlay.redirect": "/etc",
            "SCHILY.xattr.weird": "x",
            "SCHILY.xattr.user.keep": "x",
            "LIBARCHIVE.xattr.user.x": "eA",
          },
        }),
      );
      const text = output.toString("latin1");
      assert.match(text, /user\.keep=x/);
      assert.doesNotMatch(text, /overlay|weird|LIBARCHIVE/);
    });

    it("refuses too long ones", () =>
      refused(
        /attributes too long/,
        tar({ name: "a", pax: { "SCHILY.xattr.user.a": "x".repeat(65_536) } }),
      ));

    it("takes sizes, owners and times from PAX records", async () => {
      const { entries } = await filter(
        tar({
          name: "a",
          data: "12345",
          sizeField: "00000000000",
          pax: {
            size: "5",
            uid: "4294967294",
            gid: "3000000",
            mtime: "1234567890.5",
          },
        }),
      );
      const [a] = entries;
      assert.equal(a?.data, "12345");
      assert.deepEqual(JSON.parse(JSON.stringify(a?.header.pax)), {
        uid: "4294967294",
        gid: "3000000",
        mtime: "1234567890.500000000",
      });
    });

    it("reads base-256 sizes", async () => {
      const field = `\x80${"\0".repeat(10)}\x05`;
      const { entries } = await filter(
        tar({ name: "a", data: "12345", sizeField: field }),
      );
      assert.equal(entries[0]?.data, "12345");
    });

    it("writes sizes of 8 GiB and more", async () => {
      const size = 9 * 2 ** 30;
      const layer = new LayerFilter();
      const chunks: Buffer[] = [];
      layer.on("data", (chunk: Buffer) => chunks.push(chunk));
      layer.on("error", () => {});
      layer.write(tarEntry({ name: "big", pax: { size: `${size}` } }));
      await new Promise(setImmediate);
      layer.destroy();
      assert.match(
        Buffer.concat(chunks).toString("latin1"),
        / size=9663676416\n/,
      );
    });

    it("keeps devices within what Linux numbers", async () => {
      const { entries } = await filter(
        tar(
          { name: "null", type: "3", device: [1, 3] },
          { name: "loop", type: "4", device: [7, 300] },
          { name: "fifo", type: "6" },
        ),
      );
      assert.deepEqual(
        entries.map(({ type, header }) => [
          type,
          header.devmajor,
          header.devminor,
        ]),
        [
          ["character-device", 1, 3],
          ["block-device", 7, 300],
          ["fifo", 0, 0],
        ],
      );
      await refused(
        /major out of range/,
        tar({ name: "x", type: "3", device: [5000, 1] }),
      );
      await refused(
        /minor out of range/,
        tar({ name: "x", type: "4", device: [1, 0o7777777] }),
      );
    });

    it("drops file type bits from modes", async () => {
      const { entries } = await filter(tar({ name: "a", mode: 0o104755 }));
      assert.equal(entries[0]?.header.mode, 0o4755);
    });
  });

  it("skips the contents of old directories and of what has none", async () => {
    assert.deepEqual(
      await names(
        { name: "d/", type: "\0", data: "skipped" },
        { name: "f/", type: "0", data: "kept" },
        { name: "g", type: "\0", data: "kept" },
        { name: "s", type: "2", link: "g", sizeField: "00000000777" },
      ),
      ["d", "f", "g", "s"],
    );
  });

  describe("duplicates", () => {
    it("passes later files and directories on: the last one counts", async () => {
      assert.deepEqual(
        await names(
          { name: "d", type: "5" },
          { name: "f", data: "1" },
          { name: "d", type: "5", mode: 0o700 },
          { name: "f", data: "2" },
          { name: "f", type: "5" },
        ),
        ["d", "f", "d", "f", "f"],
      );
    });

    it("refuses a file in a directory's place", () =>
      refused(/in the way/, tar({ name: "d/x" }, { name: "d", data: "1" })));
  });

  describe("malformed archives", () => {
    it("are refused", async () => {
      await refused(
        /invalid tar header/,
        tar({ name: "a", badChecksum: true }),
      );
      await refused(/invalid checksum/, Buffer.alloc(2048, "x"));
      await refused(/invalid size/, tar({ name: "a", sizeField: "9zz" }));
      await refused(
        /negative size/,
        tar({ name: "a", sizeField: "\xff".repeat(12) }),
      );
      await refused(
        /PAX/,
        tar({ name: "x", type: "x", data: "99999 path=a\n" }, { name: "a" }),
      );
      await refused(
        /PAX/,
        tar({ name: "x", type: "x", data: "abc" }, { name: "a" }),
      );
      await refused(
        /invalid size in PAX/,
        tar({ name: "a", pax: { size: "-1" } }),
      );
      await refused(
        /invalid uid in PAX/,
        tar({ name: "a", pax: { uid: "1e3" } }),
      );
      await refused(
        /uid .* out of range/,
        tar({ name: "a", pax: { uid: "4294967295" } }),
      );
      await refused(/unhandled tar header type/, tar({ name: "a", type: "S" }));
      await refused(
        /sparse/,
        tar({ name: "a", pax: { "GNU.sparse.major": "1" } }),
      );
      await refused(
        /root of a layer/,
        tar({ name: "/", type: "2", link: "x" }),
      );
      await refused(
        /too long/,
        tar({ name: "a", type: "L", data: "x".repeat(1024 * 1024 + 1) }),
      );
    });

    it("are refused when they are cut short", async () => {
      const archive = tarEntry({ name: "a", data: "x".repeat(600) });
      await refused(/unexpected EOF/, archive.subarray(0, 100));
      await refused(/unexpected EOF/, archive.subarray(0, 700));
      await refused(
        /unexpected EOF/,
        tarEntry({ name: "x", type: "x", data: "12 path=abc\n" }),
      );
    });
  });

  it("survives damage anywhere: a layer passes or is refused, nothing else", async () => {
    const sound = tar(
      { name: "d", type: "5" },
      {
        name: "d/f",
        data: "x".repeat(700),
        pax: { mtime: "1.5", "SCHILY.xattr.user.a": "b" },
      },
      { name: "l", type: "1", link: "d/f" },
      { name: "s", type: "2", link: "d" },
      { name: "s/.wh.x" },
      { name: "n", type: "3", device: [1, 3] },
    );
    let seed = 1;
    const random = (below: number): number => {
      seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff;
      return seed % below;
    };
    for (let round = 0; round < 500; round++) {
      const damaged = Buffer.from(sound);
      for (let i = random(6); i >= 0; i--) {
        const block = random(sound.length / 512) * 512;
        damaged[block + random(512)] = random(256);
        repairChecksum(damaged.subarray(block, block + 512));
      }
      await filter(damaged).catch((error: unknown) => {
        assert.ok(
          error instanceof TarError,
          `round ${round}: ${String(error)}`,
        );
      });
    }
  });

  describe("limits", () => {
    const many = tar(
      ...Array.from({ length: 20 }, (_, i) => ({ name: `f${i}`, data: "x" })),
    );

    it("refuse too many entries, bytes and names", async () => {
      await refused(/more than 19 entries/, many, { entries: 19 });
      await refused(/directory has more than 19/, many, {
        directoryEntries: 19,
      });
      await refused(/larger than 1000 bytes/, many, { bytes: 1000 });
      await refused(/bytes of names/, many, { metadataBytes: 40 });
    });

    it("let pass what is just within them", async () => {
      const { entries } = await filter(many, {
        entries: 20,
        directoryEntries: 20,
        bytes: many.length,
      });
      assert.equal(entries.length, 20);
    });
  });
});
