import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { NotFound, SystemError } from "../errors.js";
import { Filters } from "../filters.js";
import { type Digest, digestOf, hexOf } from "./digest.js";
import { noErofs } from "./layers/test-erofs.js";
import {
  DOCKER_LIST,
  OCI_INDEX,
  refuse,
  sendBlob,
  TestRegistry,
} from "./registry/test-registry.js";
import { openService } from "./test-service.js";

/** A layer that does not compress, so that its blob has many pieces. */
function bulky(name = "bulk"): { name: string; data: Buffer }[] {
  return [{ name, data: randomBytes(600_000) }];
}

describe("pull", { skip: noErofs }, () => {
  it("brings an image with Docker's progress", async (t) => {
    const registry = await TestRegistry.start(t);
    const image = registry.add("1", {
      layers: [[{ name: "a", data: "1" }], [{ name: "b", data: "22" }]],
      config: { config: { Labels: { color: "red" } } },
    });
    const test = await openService(t);
    const messages = await test.pull(`${registry.host}/a/b:1`);
    const lines = messages.map(({ status, id }) =>
      id === undefined ? status : `${id}: ${status}`,
    );
    assert.equal(lines[0], "1: Pulling from a/b");
    for (const { digest } of image.layers) {
      const id = hexOf(digest).slice(0, 12);
      assert.deepEqual(
        lines
          .filter((line) => line.startsWith(id))
          .map((line) => line.slice(14))
          .filter((line, index, all) => line !== all[index - 1]),
        [
          "Pulling fs layer",
          "Downloading",
          "Verifying Checksum",
          "Download complete",
          "Extracting",
          "Pull complete",
        ],
      );
    }
    assert.deepEqual(lines.slice(-2), [
      `Digest: ${image.digest}`,
      `Status: Downloaded newer image for ${registry.host}/a/b:1`,
    ]);
    const downloading = messages.find(({ status }) => status === "Downloading");
    assert.ok((downloading?.progressDetail?.total ?? 0) > 0);
    assert.match(downloading?.progress ?? "", /^\[=+>? *\] /);
    assert.deepEqual(
      test.events.map(({ Action, Actor }) => [Action, Actor]),
      [
        [
          "pull",
          {
            ID: `${registry.host}/a/b:1`,
            Attributes: { color: "red", name: `${registry.host}/a/b` },
          },
        ],
      ],
    );

    const found = await test.service.get(`${registry.host}/a/b:1`);
    assert.equal(found.id, image.id);
    assert.deepEqual(found.repoDigests, [
      `${registry.host}/a/b@${image.digest}`,
    ]);
    const disk = await test.service.disk(found.id);
    assert.equal(disk.readonly, true);
    assert.equal(disk.parts.length, 3);
    for (const { path, bytes } of disk.parts) {
      assert.equal((await readFile(path)).length, bytes);
      assert.equal(bytes % 4096, 0);
    }
    const [first, second] = image.layers;
    assert.deepEqual(
      disk.parts.slice(1).map(({ path }) => path.split("/").at(-1)),
      [first, second].map((layer) => `${hexOf(layer?.diffId as Digest)}.erofs`),
    );
  });

  it("says that an image is up to date without fetching it again", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.add("latest");
    const test = await openService(t);
    await test.pull(`${registry.host}/a:latest`);
    registry.requests.length = 0;
    const messages = await test.pull(`${registry.host}/a:latest`);
    assert.equal(
      messages.at(-1)?.status,
      `Status: Image is up to date for ${registry.host}/a:latest`,
    );
    assert.equal(registry.count("blobs"), 0);
    assert.equal(registry.count("GET /v2/a/manifests"), 0);
  });

  it("gives another tag to an image that is there", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.add("1");
    registry.add("2");
    const test = await openService(t);
    await test.pull(`${registry.host}/a:1`);
    const messages = await test.pull(`${registry.host}/a:2`);
    assert.match(messages.at(-1)?.status ?? "", /Downloaded newer image/);
    const { repoTags } = await test.service.get(`${registry.host}/a:2`);
    assert.equal(repoTags.length, 2);
  });

  it("fetches layers that images share once", async (t) => {
    const registry = await TestRegistry.start(t);
    const shared = [{ name: "base", data: "x" }];
    const one = registry.add("1", { layers: [shared, [{ name: "one" }]] });
    registry.add("2", { layers: [shared, [{ name: "two" }]] });
    const test = await openService(t);
    await test.pull(`${registry.host}/a:1`);
    const messages = await test.pull(`${registry.host}/a:2`);
    assert.ok(messages.some(({ status }) => status === "Already exists"));
    assert.equal(registry.count(one.layers[0]?.digest ?? "?"), 1);
  });

  it("takes layers that occur twice, and images without layers", async (t) => {
    const registry = await TestRegistry.start(t);
    const empty: [] = [];
    registry.add("twice", { layers: [empty, [{ name: "x" }], empty] });
    registry.add("none", { layers: [] });
    const test = await openService(t);
    await test.pull(`${registry.host}/a:twice`);
    await test.pull(`${registry.host}/a:none`);
    const { id } = await test.service.get(`${registry.host}/a:none`);
    assert.equal((await test.service.disk(id)).parts.length, 1);
  });

  it("reads Docker's schema 2, plain layers and wrong media types", async (t) => {
    const registry = await TestRegistry.start(t);
    const image = registry.add("1", {
      docker: true,
      compress: (bytes) => bytes,
    });
    const test = await openService(t);
    await test.pull(`${registry.host}/a:1`);
    assert.equal((await test.service.get(`${registry.host}/a:1`)).id, image.id);
  });

  it("pulls by digest, leaving tags alone", async (t) => {
    const registry = await TestRegistry.start(t);
    const { digest } = registry.add("1");
    const test = await openService(t);
    const reference = `${registry.host}/a@${digest}`;
    await test.pull(reference);
    const found = await test.service.get(reference);
    assert.deepEqual(found.repoTags, []);
    assert.deepEqual(found.repoDigests, [reference]);
  });

  it("pulls all tags of a repository", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.add("1", { layers: [[{ name: "1" }]] });
    registry.add("2", { layers: [[{ name: "2" }]] });
    const test = await openService(t);
    await test.pull(`${registry.host}/a`);
    assert.equal((await test.service.list(new Filters())).length, 2);
  });

  describe("of an index", () => {
    const platform = (architecture: string, variant = "") => ({
      os: "linux",
      architecture,
      variant,
    });

    it("takes the host's platform, or the one asked for", async (t) => {
      const registry = await TestRegistry.start(t);
      const host = registry.add("x", { layers: [[{ name: "host" }]] });
      const v5 = registry.add("y", {
        layers: [[{ name: "v5" }]],
        config: { architecture: "arm", variant: "v5" },
      });
      const v6 = registry.add("z", {
        layers: [[{ name: "v6" }]],
        config: { architecture: "arm", variant: "v6" },
      });
      const index = registry.addManifest("all", DOCKER_LIST, {
        schemaVersion: 2,
        mediaType: DOCKER_LIST,
        manifests: [
          { ...v5, platform: platform("arm", "v5") },
          { ...v6, platform: platform("arm", "v6") },
          { ...host, platform: { os: "unknown", architecture: "unknown" } },
          { ...host, platform: platform("amd64") },
        ],
      });
      const test = await openService(t);
      await test.pull(`${registry.host}/a:all`, { platform: "linux/amd64" });
      const found = await test.service.get(`${registry.host}/a:all`);
      assert.equal(found.id, host.id);
      assert.deepEqual(found.repoDigests, [
        `${registry.host}/a@${index.digest}`,
      ]);
      await test.pull(`${registry.host}/a:all`, { platform: "linux/arm/v7" });
      assert.equal(
        (await test.service.get(`${registry.host}/a:all`)).id,
        v6.id,
      );
    });

    it("says when there is nothing for the platform", async (t) => {
      const registry = await TestRegistry.start(t);
      const image = registry.add("x");
      registry.addManifest("all", OCI_INDEX, {
        schemaVersion: 2,
        manifests: [{ ...image, platform: platform("s390x") }],
      });
      const test = await openService(t);
      await assert.rejects(
        test.pull(`${registry.host}/a:all`, { platform: "linux/amd64" }),
        new NotFound(
          "no matching manifest for linux/amd64 in the manifest list entries",
        ),
      );
      assert.deepEqual(await test.files(), []);
    });

    it("may be nested, but not without end", async (t) => {
      const registry = await TestRegistry.start(t);
      let inner = registry.add("x") as { digest: Digest; size: number };
      const wrap = (): void => {
        inner = registry.addManifest("nested", OCI_INDEX, {
          schemaVersion: 2,
          manifests: [{ ...inner, mediaType: "", platform: platform("amd64") }],
        });
      };
      wrap();
      wrap();
      const test = await openService(t);
      await test.pull(`${registry.host}/a:nested`, { platform: "linux/amd64" });
      for (let i = 0; i < 5; i++) wrap();
      await assert.rejects(
        test.pull(`${registry.host}/a:nested`, { platform: "linux/amd64" }),
        /nested more than 4 deep/,
      );
    });
  });

  describe("from a registry that lies", () => {
    const lies: [
      what: string,
      arrange: (registry: TestRegistry) => void,
      message: RegExp,
    ][] = [
      [
        "about a layer's digest",
        (registry) => {
          const { layers } = registry.add("1");
          registry.blobs.set(
            layers[0]?.digest ?? "",
            Buffer.alloc(layers[0]?.size ?? 0),
          );
        },
        /filesystem layer verification failed for digest sha256:/,
      ],
      [
        "about a layer's length (longer)",
        (registry) => {
          const { layers } = registry.add("1");
          registry.blobs.set(layers[0]?.digest ?? "", Buffer.alloc(1_000_000));
        },
        /is longer than the \d+ bytes its manifest says/,
      ],
      [
        "about a layer's length (shorter)",
        (registry) => {
          const { layers } = registry.add("1");
          registry.blobs.set(layers[0]?.digest ?? "", Buffer.alloc(10));
        },
        /EOF/,
      ],
      [
        "about the config",
        (registry) => {
          const { id } = registry.add("1");
          registry.blobs.set(id, Buffer.from("{}"));
        },
        /config verification failed/,
      ],
      [
        "about what is in a layer",
        (registry) => {
          registry.add("1", {
            config: {
              rootfs: {
                type: "layers",
                diff_ids: [digestOf(Buffer.from("other"))],
              },
            },
          });
        },
        /layers from manifest don't match image configuration/,
      ],
      [
        "about the number of layers",
        (registry) => {
          registry.add("1", {
            config: { rootfs: { type: "layers", diff_ids: [] } },
          });
        },
        /layers from manifest don't match image configuration/,
      ],
      [
        "with a hostile layer",
        (registry) => {
          registry.add("1", {
            layers: [[{ name: "../../../etc/cron.d/x", data: "x" }]],
          });
        },
        /failed to register layer: .*outside of the layer/,
      ],
      [
        "with a document that is manifest and index at once",
        (registry) => {
          registry.add("1", { manifest: { manifests: [] } });
        },
        /unsupported manifest/,
      ],
      [
        "with something that is no image",
        (registry) => {
          const id = registry.addBlob(Buffer.from("{}"));
          registry.add("1", {
            manifest: {
              config: {
                mediaType: "application/vnd.cncf.helm.config.v1+json",
                digest: id,
                size: 2,
              },
            },
          });
        },
        /not a container image/,
      ],
      [
        "with an image of Windows",
        (registry) => {
          registry.add("1", { config: { os: "windows" } });
        },
        /image operating system "windows" cannot be used/,
      ],
      [
        "with a manifest of schema 1",
        (registry) => {
          registry.addManifest(
            "1",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            { schemaVersion: 1 },
          );
        },
        /schema 1 is not supported/,
      ],
      [
        "with too long a manifest",
        (registry) => {
          registry.addManifest("1", OCI_INDEX, {
            junk: "x".repeat(4 * 1024 * 1024),
          });
        },
        /longer than 4194304 bytes/,
      ],
      [
        "with what is not JSON",
        (registry) => {
          registry.manifests.set("1", {
            mediaType: OCI_INDEX,
            bytes: Buffer.from("<html>"),
          });
          registry.manifests.set(digestOf(Buffer.from("<html>")), {
            mediaType: OCI_INDEX,
            bytes: Buffer.from("<html>"),
          });
        },
        /malformed manifest/,
      ],
    ];
    for (const [what, arrange, message] of lies) {
      it(`${what}, fails and leaves nothing`, async (t) => {
        const registry = await TestRegistry.start(t);
        arrange(registry);
        const test = await openService(t);
        await assert.rejects(test.pull(`${registry.host}/a:1`), message);
        assert.deepEqual(await test.files(), []);
        assert.deepEqual(await test.service.list(new Filters()), []);
      });
    }

    it("about a manifest's digest, fails", async (t) => {
      const registry = await TestRegistry.start(t);
      const digest = digestOf(Buffer.from("wanted"));
      registry.manifests.set(digest, {
        mediaType: OCI_INDEX,
        bytes: Buffer.from("{}"),
      });
      const test = await openService(t);
      await assert.rejects(
        test.pull(`${registry.host}/a@${digest}`),
        new SystemError(`manifest verification failed for digest ${digest}`),
      );
    });
  });

  describe("over a connection that dies", () => {
    it("goes on where it broke off", async (t) => {
      const registry = await TestRegistry.start(t);
      const image = registry.add("1", { layers: [bulky()] });
      const ranges: (string | undefined)[] = [];
      registry.intercept = (req, res) => {
        const digest = image.layers[0]?.digest ?? "";
        if (!(req.url ?? "").endsWith(digest)) return false;
        ranges.push(req.headers.range);
        if (ranges.length > 2) return false;
        const blob = registry.blobs.get(digest) as Buffer;
        const from = Number(/=(\d+)/.exec(req.headers.range ?? "")?.[1] ?? 0);
        res.writeHead(from > 0 ? 206 : 200, {
          "Content-Length": blob.length - from,
          "Content-Range": `bytes ${from}-${blob.length - 1}/${blob.length}`,
        });
        res.write(blob.subarray(from, from + 200_000), () => res.destroy());
        return true;
      };
      const test = await openService(t);
      const messages = await test.pull(`${registry.host}/a:1`);
      assert.equal(ranges.length, 3);
      assert.equal(ranges[0], undefined);
      assert.match(ranges[2] ?? "", /^bytes=[1-9]\d+-$/);
      assert.ok(
        messages.some(({ status }) => status.startsWith("Retrying in")),
      );
    });

    it("begins again when the registry cannot resume", async (t) => {
      const registry = await TestRegistry.start(t);
      const image = registry.add("1", { layers: [bulky()] });
      let attempts = 0;
      registry.intercept = (req, res) => {
        const digest = image.layers[0]?.digest ?? "";
        if (!(req.url ?? "").endsWith(digest)) return false;
        const blob = registry.blobs.get(digest) as Buffer;
        res.writeHead(200, { "Content-Length": blob.length });
        if (++attempts === 1)
          res.write(blob.subarray(0, 200_000), () => res.destroy());
        else res.end(blob);
        return true;
      };
      const test = await openService(t);
      await test.pull(`${registry.host}/a:1`);
      assert.equal(attempts, 2);
    });

    it("begins again when the resumed part does not fit", async (t) => {
      const registry = await TestRegistry.start(t);
      const image = registry.add("1", { layers: [bulky()] });
      let attempts = 0;
      registry.intercept = (req, res) => {
        const digest = image.layers[0]?.digest ?? "";
        if (!(req.url ?? "").endsWith(digest)) return false;
        const blob = registry.blobs.get(digest) as Buffer;
        if (++attempts === 1) {
          res.writeHead(200, { "Content-Length": blob.length });
          res.write(Buffer.alloc(200_000), () => res.destroy());
        } else sendBlob(req, res, blob);
        return true;
      };
      const test = await openService(t);
      await test.pull(`${registry.host}/a:1`);
      assert.equal(attempts, 3);
    });

    it("gives up in the end, leaving nothing", async (t) => {
      const registry = await TestRegistry.start(t);
      const image = registry.add("1", {
        layers: [[{ name: "fine" }], bulky()],
      });
      let attempts = 0;
      registry.intercept = (req, res) => {
        if (!(req.url ?? "").endsWith(image.layers[1]?.digest ?? ""))
          return false;
        attempts++;
        res.destroy();
        return true;
      };
      const test = await openService(t);
      await assert.rejects(
        test.pull(`${registry.host}/a:1`),
        /Get "http:.*EOF|closed|reset/,
      );
      assert.equal(attempts, 5);
      assert.deepEqual(await test.files(), []);
    });
  });

  it("stops when the client goes away, leaving nothing", async (t) => {
    const registry = await TestRegistry.start(t);
    const image = registry.add("1", { layers: [bulky("a"), bulky("b")] });
    const gone = new AbortController();
    registry.intercept = (req, res) => {
      if (!(req.url ?? "").endsWith(image.layers[1]?.digest ?? ""))
        return false;
      res.writeHead(200, { "Content-Length": image.layers[1]?.size ?? 0 });
      res.write("begun", () =>
        setTimeout(() => gone.abort(new Error("gone")), 20),
      );
      return true;
    };
    const test = await openService(t);
    await assert.rejects(
      test.pull(`${registry.host}/a:1`, { signal: gone.signal }),
      /gone/,
    );
    assert.deepEqual(await test.files(), []);
    assert.equal(test.events.length, 0);
  });

  it("is shared by clients who want the same, and survives one that leaves", async (t) => {
    const registry = await TestRegistry.start(t);
    const image = registry.add("1", { layers: [bulky()] });
    const digest = image.layers[0]?.digest ?? "";
    const gone = new AbortController();
    let release = (): void => {};
    const held = new Promise<void>((resolve) => (release = resolve));
    registry.intercept = async (req) => {
      if ((req.url ?? "").endsWith(digest)) await held;
      return false;
    };
    const test = await openService(t);
    const first = test.pull(`${registry.host}/a:1`, { signal: gone.signal });
    const second = test.pull(`${registry.host}/b:1`);
    while (registry.count(image.id) < 2) await new Promise(setImmediate);
    await new Promise((resolve) => setTimeout(resolve, 50));
    gone.abort(new Error("gone"));
    await assert.rejects(first, /gone/);
    release();
    await second;
    assert.equal(registry.count(digest), 1);
    assert.equal((await test.service.get(`${registry.host}/b:1`)).id, image.id);
    await assert.rejects(test.service.get(`${registry.host}/a:1`), NotFound);
  });

  it("downloads no more layers at once than configured", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.add("1", {
      layers: ["a", "b", "c", "d", "e", "f"].map((name) => [
        { name, data: name },
      ]),
      compress: (bytes) => bytes,
    });
    let now = 0;
    let most = 0;
    registry.intercept = async (req, res) => {
      if (!(req.url ?? "").includes("/blobs/")) return false;
      most = Math.max(most, ++now);
      await new Promise((resolve) => setTimeout(resolve, 20));
      res.on("finish", () => now--);
      return false;
    };
    const test = await openService(t, {
      download: { concurrency: 2, retryDelay: () => 1 },
    });
    const messages = await test.pull(`${registry.host}/a:1`);
    assert.equal(most, 2);
    assert.ok(messages.some(({ status }) => status === "Waiting"));
  });

  describe("refused", () => {
    const refusals: [
      status: number,
      code: string,
      text: string,
      error: Error | RegExp,
    ][] = [
      [
        404,
        "MANIFEST_UNKNOWN",
        "manifest unknown",
        new NotFound(
          "manifest for HOST/a:1 not found: manifest unknown: manifest unknown",
        ),
      ],
      [
        404,
        "NAME_UNKNOWN",
        "repository name not known to registry",
        new NotFound(
          "repository HOST/a not found: name unknown: repository name not known to registry",
        ),
      ],
      [
        403,
        "DENIED",
        "requested access to the resource is denied",
        new NotFound(
          "pull access denied for HOST/a, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
        ),
      ],
      [
        429,
        "TOOMANYREQUESTS",
        "slow down",
        new SystemError("toomanyrequests: slow down"),
      ],
      [
        500,
        "UNKNOWN",
        "x",
        new SystemError("received unexpected HTTP status: 500"),
      ],
    ];
    for (const [status, code, text, error] of refusals) {
      it(`with ${status} ${code}, says so as Docker does`, async (t) => {
        const registry = await TestRegistry.start(t);
        registry.intercept = (req, res) => {
          if (!(req.url ?? "").includes("/manifests/")) return false;
          refuse(res, status, code, text);
          return true;
        };
        const test = await openService(t);
        await assert.rejects(test.pull(`${registry.host}/a:1`), (actual) => {
          assert.ok(actual instanceof Error && error instanceof Error);
          assert.equal(actual.constructor, error.constructor);
          assert.equal(
            actual.message.replaceAll(registry.host, "HOST"),
            error.message,
          );
          return true;
        });
      });
    }

    it("by nobody being there, says so", async (t) => {
      const test = await openService(t);
      await assert.rejects(
        test.pull("127.0.0.1:1/a:1"),
        new SystemError(
          'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
        ),
      );
    });
  });

  it("follows redirects to blob stores without credentials", async (t) => {
    const store = await TestRegistry.start(t);
    const registry = await TestRegistry.start(t);
    const image = registry.add("1");
    for (const [digest, blob] of registry.blobs) store.blobs.set(digest, blob);
    registry.intercept = (req, res) => {
      if (req.headers.authorization === undefined) {
        refuse(res, 401, "UNAUTHORIZED", "x", {
          "WWW-Authenticate": 'Basic realm="r"',
        });
        return true;
      }
      if (!(req.url ?? "").includes("/blobs/")) return false;
      res.writeHead(307, { Location: `http://${store.host}${req.url}` });
      res.end();
      return true;
    };
    const test = await openService(t);
    await test.pull(`${registry.host}/a:1`, {
      credentials: {
        username: "u",
        password: "p",
        identityToken: "",
        registryToken: "",
      },
    });
    assert.equal((await test.service.get(`${registry.host}/a:1`)).id, image.id);
    assert.equal(store.requests.length, 2);
    assert.equal(store.count("Basic"), 0);
    assert.ok(registry.count("Basic") > 2);
  });

  it("gives up on redirects in a circle", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.intercept = (req, res) => {
      if (!(req.url ?? "").includes("/manifests/")) return false;
      res.writeHead(302, { Location: req.url });
      res.end();
      return true;
    };
    const test = await openService(t);
    await assert.rejects(
      test.pull(`${registry.host}/a:1`),
      /stopped after 10 redirects/,
    );
  });

  it("asks mirrors for images of docker.io first, without credentials", async (t) => {
    const broken = await TestRegistry.start(t);
    broken.intercept = (_req, res) => {
      refuse(res, 503, "UNAVAILABLE", "later");
      return true;
    };
    const mirror = await TestRegistry.start(t);
    const image = mirror.add("latest");
    const test = await openService(t, {
      registry: {
        mirrors: [`http://${broken.host}`, `http://${mirror.host}/`],
        insecure: [],
        certificateFolders: [],
      },
    });
    const messages = await test.pull("busybox:latest", {
      credentials: {
        username: "u",
        password: "p",
        identityToken: "",
        registryToken: "",
      },
    });
    assert.equal(messages[0]?.status, "Pulling from library/busybox");
    assert.equal((await test.service.get("busybox")).id, image.id);
    assert.ok(mirror.count("/v2/library/busybox/manifests/latest") > 0);
    assert.equal(mirror.count("Basic"), 0);
  });

  it("keeps what it brought over a restart, and clears away what a crash left", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.add("1", { layers: [[{ name: "a", data: "1" }]] });
    const test = await openService(t);
    await test.pull(`${registry.host}/a:1`);
    const before = await test.files();
    const root = join(test.dataRoot, "images");
    const stray = "ab".repeat(32);
    await writeFile(join(root, "tmp", "1-1"), "x");
    await writeFile(join(root, "layers", `${stray}.erofs`), "x");
    await writeFile(join(root, "blobs", "sha256", stray), "x");
    await writeFile(join(root, "images", `${stray}.json`), "{}");
    await writeFile(join(root, "merged", `${stray}.erofs`), "x");
    const service = await test.reopen();
    assert.deepEqual(
      (await test.files()).filter((name) => !/\.damaged-\d+$/.test(name)),
      before,
    );
    const { id } = await service.get(`${registry.host}/a:1`);
    assert.equal((await service.disk(id)).parts.length, 2);
  });

  it("makes a lost merged root again", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.add("1");
    const test = await openService(t);
    await test.pull(`${registry.host}/a:1`);
    const { id } = await test.service.get(`${registry.host}/a:1`);
    const [merged] = (await test.service.disk(id)).parts;
    await rm(merged?.path ?? "");
    const again = (await test.service.disk(id)).parts[0];
    assert.deepEqual(again, merged);
  });
});
