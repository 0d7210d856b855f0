import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { InvalidParameter } from "../../errors.js";
import { parseChallenges } from "./challenge.js";
import { ANONYMOUS, decodeRegistryAuth } from "./credentials.js";

const encode = (
  value: unknown,
  alphabet: "base64" | "base64url" = "base64url",
) => Buffer.from(JSON.stringify(value)).toString(alphabet);

describe("decodeRegistryAuth", () => {
  it("takes no header, and an empty object, for nobody", () => {
    assert.deepEqual(decodeRegistryAuth(""), ANONYMOUS);
    assert.deepEqual(decodeRegistryAuth(encode({})), ANONYMOUS);
  });
  it("reads both alphabets and ignores other fields", () => {
    const auth = {
      username: "jo",
      password: "ÿþ~?",
      serveraddress: "x",
      email: null,
    };
    for (const alphabet of ["base64", "base64url"] as const) {
      const { username, password } = decodeRegistryAuth(encode(auth, alphabet));
      assert.deepEqual([username, password], ["jo", "ÿþ~?"]);
    }
  });
  it("splits `auth` at the first colon", () => {
    const auth = Buffer.from("jo:a:b").toString("base64");
    const { username, password } = decodeRegistryAuth(encode({ auth }));
    assert.deepEqual([username, password], ["jo", "a:b"]);
  });
  it("reads tokens", () => {
    const found = decodeRegistryAuth(
      encode({ identitytoken: "i", registrytoken: "r" }),
    );
    assert.deepEqual([found.identityToken, found.registryToken], ["i", "r"]);
  });
  for (const header of [
    "!",
    "e30=e30=",
    Buffer.from("nope").toString("base64"),
    encode([]),
    encode("x"),
    encode({ username: 1 }),
    encode({ auth: "bm9jb2xvbg==" }),
  ]) {
    it(`refuses ${header}`, () => {
      assert.throws(() => decodeRegistryAuth(header), InvalidParameter);
    });
  }
});

describe("parseChallenges", () => {
  const parsed = (header: string | string[]) =>
    parseChallenges(header).map(({ scheme, parameters }) => [
      scheme,
      Object.fromEntries(parameters),
    ]);
  it("reads quoted and plain parameters", () => {
    assert.deepEqual(
      parsed('Bearer realm="https://a/b?c=d,e",service=x , Scope="a \\"b\\""'),
      [
        [
          "bearer",
          { realm: "https://a/b?c=d,e", service: "x", scope: 'a "b"' },
        ],
      ],
    );
  });
  it("reads several challenges", () => {
    const expected = [
      ["basic", { realm: "r" }],
      ["bearer", { realm: "s" }],
    ];
    assert.deepEqual(parsed('Basic realm="r", Bearer realm="s"'), expected);
    assert.deepEqual(parsed(['Basic realm="r"', 'Bearer realm="s"']), expected);
  });
  it("leaves out what it cannot read", () => {
    assert.deepEqual(parseChallenges(undefined), []);
    assert.deepEqual(parsed(""), []);
    assert.deepEqual(parsed('="'), []);
    assert.deepEqual(parsed("Negotiate"), [["negotiate", {}]]);
  });
  it("takes linear time", () => {
    const start = process.hrtime.bigint();
    parseChallenges(`Bearer ${'a="'.repeat(100_000)}`);
    parseChallenges(`Bearer a="${"\\".repeat(100_000)}`);
    assert.ok(process.hrtime.bigint() - start < 500_000_000n);
  });
});
