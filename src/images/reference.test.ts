import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { InvalidParameter } from "../errors.js";
import { parseAnyReference, parseReference } from "./reference.js";

const HEX = "ab".repeat(32);
const DIGEST = `sha256:${HEX}`;

describe("parseReference", () => {
  const valid: [text: string, canonical: string, familiar: string][] = [
    ["busybox", "docker.io/library/busybox", "busybox"],
    ["busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"],
    ["library/busybox", "docker.io/library/busybox", "busybox"],
    ["docker.io/busybox", "docker.io/library/busybox", "busybox"],
    ["docker.io/library/busybox:a", "docker.io/library/busybox:a", "busybox:a"],
    ["index.docker.io/busybox", "docker.io/library/busybox", "busybox"],
    ["index.docker.io/u/app", "docker.io/u/app", "u/app"],
    ["user/app", "docker.io/user/app", "user/app"],
    ["user/app/sub:v1", "docker.io/user/app/sub:v1", "user/app/sub:v1"],
    ["library/a/b", "docker.io/library/a/b", "library/a/b"],
    ["localhost/app", "localhost/app", "localhost/app"],
    ["localhost:5000/app:x", "localhost:5000/app:x", "localhost:5000/app:x"],
    [
      "127.0.0.1:5000/a/b:tag",
      "127.0.0.1:5000/a/b:tag",
      "127.0.0.1:5000/a/b:tag",
    ],
    ["[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"],
    ["ghcr.io/o/r:t", "ghcr.io/o/r:t", "ghcr.io/o/r:t"],
    ["Registry/app", "Registry/app", "Registry/app"],
    ["UPPER.example.com/app", "UPPER.example.com/app", "UPPER.example.com/app"],
    ["xn--n3h.com/app", "xn--n3h.com/app", "xn--n3h.com/app"],
    [
      `busybox@${DIGEST}`,
      `docker.io/library/busybox@${DIGEST}`,
      `busybox@${DIGEST}`,
    ],
    [
      `busybox:1@${DIGEST}`,
      `docker.io/library/busybox:1@${DIGEST}`,
      `busybox:1@${DIGEST}`,
    ],
    ["a__b", "docker.io/library/a__b", "a__b"],
    ["a---b.c_d", "docker.io/library/a---b.c_d", "a---b.c_d"],
    [
      "x:_under.score-1",
      "docker.io/library/x:_under.score-1",
      "x:_under.score-1",
    ],
    [
      `x:${"t".repeat(128)}`,
      `docker.io/library/x:${"t".repeat(128)}`,
      `x:${"t".repeat(128)}`,
    ],
    ["5000/app", "docker.io/5000/app", "5000/app"],
    [
      `x@sha512:${HEX}${HEX}`,
      `docker.io/library/x@sha512:${HEX}${HEX}`,
      `x@sha512:${HEX}${HEX}`,
    ],
  ];
  for (const [text, canonical, familiar] of valid) {
    it(`reads ${text.slice(0, 60)}`, () => {
      const reference = parseReference(text);
      assert.equal(reference.toString(), canonical);
      assert.equal(reference.familiar, familiar);
    });
  }

  const format = "invalid reference format";
  const invalid: [text: string, message: string | RegExp][] = [
    ["", format],
    [" ", format],
    [":", format],
    ["busybox:", format],
    ["busybox@", format],
    ["busybox:a b", format],
    ["/busybox", format],
    ["busybox/", format],
    ["a//b", format],
    ["-a", format],
    ["a-", format],
    ["a___b", format],
    ["a..b", format],
    [".hidden", format],
    ["a.b.c./d", format],
    ["-x.com/app", format],
    ["http://example.com/app", format],
    ["host:port/app", format],
    ["x:.tag", format],
    [`x:${"t".repeat(129)}`, format],
    ["x@sha256:abc", format],
    ["böse", format],
    ["a\nb", format],
    ["a\0b", format],
    ["busybox\n", format],
    ["z".repeat(100_000), format],
    [
      "Busybox",
      "invalid reference format: repository name (library/Busybox) must be lowercase",
    ],
    [
      "user/App:Tag",
      "invalid reference format: repository name (user/App) must be lowercase",
    ],
    [
      "localhost:5000/APP",
      "invalid reference format: repository name (APP) must be lowercase",
    ],
    [
      HEX,
      `invalid repository name (${HEX}), cannot specify 64-byte hexadecimal strings`,
    ],
    [`example.com/${"a/".repeat(150)}a`, /must not be more than 255/],
    [`x@md5:${HEX.slice(0, 32)}`, "unsupported digest algorithm"],
    [`x@constructor:${HEX}`, "unsupported digest algorithm"],
    [`x@sha256:${HEX}00`, "invalid checksum digest length"],
    [`x@sha256:${HEX.toUpperCase()}`, "invalid checksum digest format"],
  ];
  for (const [text, message] of invalid) {
    it(`refuses ${JSON.stringify(text.slice(0, 60))}`, () => {
      assert.throws(
        () => parseReference(text),
        (error) => {
          assert.ok(error instanceof InvalidParameter);
          if (typeof message === "string") assert.equal(error.message, message);
          else assert.match(error.message, message);
          return true;
        },
      );
    });
  }

  it("takes linear time on hostile input", () => {
    const start = process.hrtime.bigint();
    for (const text of [
      `${"a".repeat(1000)}!`,
      `${"a-".repeat(500)}!`,
      `${"a_".repeat(500)}!/x`,
      `${"a.".repeat(500)}/!`,
      `x@${"a+".repeat(500)}`,
    ]) {
      assert.throws(() => parseReference(text), InvalidParameter);
    }
    assert.ok(process.hrtime.bigint() - start < 200_000_000n);
  });
});

describe("parseAnyReference", () => {
  it("takes 64 hexadecimal digits as an image ID", () => {
    assert.deepEqual(parseAnyReference(HEX), {
      kind: "digest",
      digest: DIGEST,
    });
  });
  it("takes a whole digest as an image ID", () => {
    assert.deepEqual(parseAnyReference(DIGEST), {
      kind: "digest",
      digest: DIGEST,
    });
  });
  it("takes a short ID as a name", () => {
    const any = parseAnyReference("abcdef123456");
    assert.equal(any.kind, "named");
  });
  it("takes a short digest as a name with a tag", () => {
    const any = parseAnyReference("sha256:abcdef");
    assert.ok(any.kind === "named");
    assert.equal(any.reference.toString(), "docker.io/library/sha256:abcdef");
  });
});

describe("Reference", () => {
  it("defaults to the tag latest only without tag and digest", () => {
    assert.equal(parseReference("x").withDefaultTag().tag, "latest");
    assert.equal(parseReference("x:1").withDefaultTag().tag, "1");
    const digested = parseReference(`x@${DIGEST}`).withDefaultTag();
    assert.equal(digested.tag, undefined);
  });
  it("refuses a tag that is none", () => {
    assert.throws(() => parseReference("x").withTag("a/b"), InvalidParameter);
    assert.throws(() => parseReference("x").withTag(""), InvalidParameter);
  });
});
