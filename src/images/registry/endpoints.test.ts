import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { InvalidParameter } from "../../errors.js";
import { temporaryFolder } from "../layers/test-erofs.js";
import { endpointsOf, isInsecure, parseMirror } from "./endpoints.js";
import { makeCertificate } from "./test-certificate.js";

const NONE = { mirrors: [], insecure: [], certificateFolders: [] };

describe("endpointsOf", () => {
  const bases = async (domain: string, options = {}): Promise<string[]> =>
    (await endpointsOf(domain, { ...NONE, ...options })).map(
      ({ base }) => base,
    );

  it("speaks HTTPS only with registries in general", async () => {
    assert.deepEqual(await bases("registry.example:5000"), [
      "https://registry.example:5000",
    ]);
    assert.deepEqual(await bases("docker.io"), [
      "https://registry-1.docker.io",
    ]);
  });

  it("tries HTTP too on loopback and where allowed", async () => {
    assert.deepEqual(await bases("127.0.0.1:5000"), [
      "https://127.0.0.1:5000",
      "http://127.0.0.1:5000",
    ]);
    assert.deepEqual(
      await bases("registry.example:5000", {
        insecure: ["registry.example:5000"],
      }),
      ["https://registry.example:5000", "http://registry.example:5000"],
    );
  });

  it("asks mirrors first, for docker.io only", async () => {
    const mirrors = ["https://mirror.example/hub/", "http://10.0.0.1:5000"];
    assert.deepEqual(await bases("docker.io", { mirrors }), [
      "https://mirror.example/hub",
      "http://10.0.0.1:5000",
      "https://registry-1.docker.io",
    ]);
    assert.deepEqual(await bases("quay.io", { mirrors }), ["https://quay.io"]);
  });

  it("reads the certificates of a registry's folder", async (t) => {
    const folder = await temporaryFolder(t);
    const { cert, key } = makeCertificate(folder);
    const directory = join(folder, "registry.example:5000");
    await mkdir(directory);
    const options = { ...NONE, certificateFolders: ["/nowhere", folder] };
    await writeFile(join(directory, "ca.crt"), cert);
    await writeFile(join(directory, "client.cert"), cert);
    await writeFile(join(directory, "README"), "x");
    await assert.rejects(
      endpointsOf("registry.example:5000", options),
      /missing key client\.key for client certificate client\.cert/,
    );
    await writeFile(join(directory, "client.key"), key);
    const [endpoint] = await endpointsOf("registry.example:5000", options);
    assert.deepEqual(endpoint?.tls, {
      verify: true,
      ca: [cert],
      certificates: [{ cert, key }],
    });
    const [other] = await endpointsOf("other.example", options);
    assert.deepEqual(other?.tls.ca, []);
    await writeFile(join(directory, "bad.crt"), "x");
    await assert.rejects(
      endpointsOf("registry.example:5000", options),
      /bad\.crt is not a certificate/,
    );
  });
});

describe("isInsecure", () => {
  const cases: [host: string, insecure: string[], expected: boolean][] = [
    ["127.0.0.1", [], true],
    ["127.200.3.4:5000", [], true],
    ["localhost:5000", [], true],
    ["[::1]:5000", [], true],
    ["128.0.0.1", [], false],
    ["registry.example", ["registry.example"], true],
    ["registry.example:5000", ["registry.example"], true],
    ["registry.example:5001", ["registry.example:5000"], false],
    ["10.1.2.3:5000", ["10.0.0.0/8"], true],
    ["11.1.2.3:5000", ["10.0.0.0/8"], false],
    ["[fd00::1]:5000", ["fd00::/8", "10.0.0.0/8"], true],
    ["10.1.2.3", ["10.0.0.0/99", "x/y"], false],
  ];
  for (const [host, insecure, expected] of cases) {
    it(`${host} with [${insecure.join()}] is ${expected}`, async () => {
      assert.equal(await isInsecure(host, insecure), expected);
    });
  }
});

describe("parseMirror", () => {
  for (const mirror of [
    "",
    "mirror",
    "ftp://x",
    "http://u:p@x",
    "http://x?a",
  ]) {
    it(`refuses ${JSON.stringify(mirror)}`, () => {
      assert.throws(() => parseMirror(mirror), InvalidParameter);
    });
  }
});
