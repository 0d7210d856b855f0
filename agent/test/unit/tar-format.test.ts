import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, it } from "node:test";
import {
  BLOCK,
  CHECKSUM,
  checksumField,
  decodeHeader,
  decodePax,
  encodeEntry,
  entryOf,
  TarType,
  type TarEntry,
} from "../../src/tree/tar-format.js";

const plain: TarEntry = {
  name: "file",
  type: TarType.File,
  mode: 0o644,
  uid: 0,
  gid: 0,
  size: 0,
  seconds: 1e9,
  nanoseconds: 0,
  linkname: "",
  major: 0,
  minor: 0,
  xattrs: [],
};

function sumOf(block: string): number {
  return [...block].reduce((sum, byte) => sum + byte.charCodeAt(0), 0);
}

/** As the writer does it. */
function sealed(block: string): string {
  if (block.slice(257, 262) !== "ustar") return block;
  const field = checksumField(sumOf(block));
  return (
    block.slice(0, CHECKSUM.at) +
    field +
    block.slice(CHECKSUM.at + CHECKSUM.length)
  );
}

function roundTrip(entry: TarEntry): TarEntry {
  const blocks = encodeEntry(entry).map(sealed);
  const header = blocks[blocks.length - 1] ?? "";
  let pax = new Map<string, string>();
  if (blocks.length > 1) {
    const raw = decodeHeader(blocks[0] ?? "", sumOf(blocks[0] ?? ""));
    assert.equal(raw.type, "x");
    pax = decodePax((blocks[1] ?? "").slice(0, raw.size));
  }
  return entryOf(decodeHeader(header, sumOf(header)), pax);
}

describe("tar headers", () => {
  const cases: [string, Partial<TarEntry>][] = [
    ["a plain file", {}],
    [
      "a long name and link",
      {
        name: "n/".repeat(120),
        linkname: "l".repeat(300),
        type: TarType.Symlink,
      },
    ],
    ["a name of bytes that are no UTF-8", { name: "\xff\xfe" }],
    ["big numbers", { uid: 3e9, gid: 4e9, size: 2 ** 40 }],
    ["nanoseconds", { nanoseconds: 5 }],
    ["a time before 1970", { seconds: -2, nanoseconds: 250_000_000 }],
    ["a device", { type: TarType.CharacterDevice, major: 1, minor: 3 }],
    [
      "attributes of any bytes",
      { xattrs: ["user.a", "\0=\n\xff", "user.b", ""].slice(0, 2) },
    ],
  ];
  for (const [what, fields] of cases)
    it(`keep ${what}`, () => {
      const entry = { ...plain, ...fields };
      assert.deepEqual(roundTrip(entry), entry);
    });

  it("are read by GNU tar", () => {
    const blocks = encodeEntry({
      ...plain,
      name: "x".repeat(200),
      nanoseconds: 1,
    });
    const bytes = Buffer.from(
      blocks.map(sealed).join("") + "\0".repeat(2 * BLOCK),
      "latin1",
    );
    assert.equal(
      execFileSync("tar", ["-t"], { input: bytes, encoding: "utf8" }),
      `${"x".repeat(200)}\n`,
    );
  });

  it("are refused when they are damaged", () => {
    const block = sealed(encodeEntry(plain)[0] ?? "");
    const broken = `X${block.slice(1)}`;
    assert.throws(
      () => decodeHeader(broken, sumOf(broken)),
      /invalid tar header/,
    );
    for (const pax of [
      "12",
      "0 a=b\n",
      "99 a=b\n",
      "6 a=b\n\n",
      "7 abcd\n",
      "-1 a=b\n",
    ])
      assert.throws(
        () => decodePax(pax),
        /invalid tar header/,
        JSON.stringify(pax),
      );
    for (const pax of [
      new Map([["size", "x"]]),
      new Map([["mtime", "1e9"]]),
      new Map([["GNU.sparse.map", "0"]]),
    ])
      assert.throws(() => entryOf(decodeHeader(block, sumOf(block)), pax));
  });
});
