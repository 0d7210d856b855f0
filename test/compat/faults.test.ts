import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { after, afterEach, beforeEach, describe, test } from "node:test";
import { Daemon } from "./harness/daemon.js";
import { docker, dockerOk } from "./harness/docker.js";
import { environment, imageRef } from "./harness/environment.js";
import {
  faultProxy,
  type FaultProxy,
  type Rule,
} from "./harness/fault-proxy.js";
import { blob, image, layer } from "./harness/image-builder.js";
import { push } from "./harness/registry.js";

/** All files of the image store. */
function storedFiles(): string[] {
  return readdirSync(Daemon.shared().dataRoot, {
    recursive: true,
    encoding: "utf8",
  })
    .filter((file) => !/(^|\/)(containers|networks)(\/|$)/.test(file))
    .sort();
}

describe("registries and images that misbehave", () => {
  let proxy: FaultProxy | undefined;
  let files: string[];
  const repository = "faulty";

  /** A fresh image, so that no layer of it is there already, behind a registry with faults. */
  async function behind(
    rulesFor: (layerPath: RegExp) => Rule[],
  ): Promise<string> {
    const content = Array.from({ length: 4000 }, () =>
      Math.random().toString(36),
    ).join("\n");
    const built = image([await layer([{ name: "content", content }])], {
      config: { Cmd: ["sh"] },
    });
    await push(environment().registries.plain, repository, "latest", built);
    const layerPath = new RegExp(`/blobs/${built.blobs[0]?.digest}`);
    proxy = await faultProxy(
      environment().registries.plain,
      rulesFor(layerPath),
    );
    return `${proxy.host}/${repository}:latest`;
  }

  beforeEach(() => {
    files = storedFiles();
  });
  afterEach(async () => {
    await proxy?.stop();
    proxy = undefined;
  });
  after(async () => {
    await docker(["image", "prune", "-af", "--filter", "label=none"]);
  });

  async function refused(name: string, pattern: RegExp): Promise<void> {
    const { code, stdout, stderr } = await docker(["pull", name], {
      timeout: 120_000,
    });
    assert.equal(code, 1, stdout + stderr);
    assert.match(stderr, pattern);
    assert.equal((await docker(["image", "inspect", name])).code, 1);
    assert.deepEqual(storedFiles(), files, "nothing half-made is left");
  }

  test("a layer whose digest lies", async () => {
    const name = await behind((layerPath) => [
      { path: layerPath, fault: { kind: "corrupt" } },
    ]);
    await refused(
      name,
      /verification failed for digest sha256:[0-9a-f]{64}|digest/i,
    );
  });

  test("a manifest that is not what its digest says", async () => {
    const name = await behind(() => [
      { path: /\/manifests\//, fault: { kind: "corrupt" } },
    ]);
    await refused(name, /./);
  });

  test("a registry that dies in the middle of a blob, each time", async () => {
    const name = await behind((layerPath) => [
      { path: layerPath, fault: { kind: "cut", after: 100 } },
    ]);
    await refused(
      name,
      /unexpected EOF|closed|terminated|reset|aborted|cut|ended|EOF/i,
    );
  });

  test("a registry that dies once is asked again", async () => {
    const name = await behind((layerPath) => [
      {
        path: layerPath,
        fault: { kind: "cut", after: 5000 },
        times: 2,
      },
    ]);
    await dockerOk(["pull", name], { timeout: 120_000 });
    assert.equal(proxy?.hits[0], 2);
    await dockerOk(["rmi", name]);
    assert.deepEqual(storedFiles(), files);
  });

  test("a registry that fails for a while is asked again", async () => {
    const name = await behind((layerPath) => [
      {
        path: layerPath,
        fault: { kind: "status", status: 503 },
        times: 1,
      },
    ]);
    await dockerOk(["pull", name], { timeout: 120_000 });
    await dockerOk(["rmi", name]);
  });

  test("a registry that answers nonsense", async () => {
    const name = await behind(() => [
      {
        path: /\/manifests\//,
        fault: { kind: "status", status: 200, body: "<html>" },
      },
      {
        method: "HEAD",
        path: /\/manifests\//,
        fault: { kind: "status", status: 200 },
      },
    ]);
    await refused(name, /./);
  });

  test("a registry that refuses", async () => {
    const name = await behind(() => [
      {
        path: /\/manifests\//,
        fault: {
          kind: "status",
          status: 403,
          body: JSON.stringify({
            errors: [{ code: "DENIED", message: "not for you" }],
          }),
        },
      },
      {
        method: "HEAD",
        path: /\/manifests\//,
        fault: { kind: "status", status: 403 },
      },
    ]);
    await refused(name, /denied|not for you|forbidden/i);
  });

  test("a registry that stalls does not hold up another pull", async () => {
    const name = await behind((layerPath) => [
      {
        path: layerPath,
        fault: { kind: "stall", after: 100 },
        times: 1,
      },
    ]);
    const stalled = docker(["pull", name], { timeout: 5_000 });
    await docker(["rmi", "-f", imageRef("multi")]);
    await dockerOk(["pull", imageRef("multi")], { timeout: 20_000 });
    await assert.rejects(stalled, /did not end/);
    await proxy?.stop();
    await dockerOk(["pull", imageRef(repository)], { timeout: 30_000 });
    await dockerOk(["rmi", imageRef(repository)]);
  });

  for (const [what, entries, pattern] of [
    ["climbs out of the root", [{ name: "../../escape", content: "x" }], /./],
    [
      "writes through a symbolic link to the outside",
      [
        { name: "link", type: "symlink", linkname: "/etc" },
        { name: "link/escaped", content: "x" },
      ],
      /./,
    ],
  ] as const) {
    test(`a layer that ${what} is refused or stays inside`, async () => {
      await push(
        environment().registries.plain,
        repository,
        "hostile",
        image([await layer([...entries])], { config: { Cmd: ["sh"] } }),
      );
      const name = imageRef(repository, "hostile");
      const { code, stderr } = await docker(["pull", name]);
      if (code === 0) {
        await dockerOk(["rmi", name]);
      } else {
        assert.match(stderr, pattern);
      }
      assert.deepEqual(storedFiles(), files);
    });
  }

  test("a layer that is no archive", async () => {
    const built = image([await layer([{ name: "x", content: "y" }])], {});
    const noise = blob(
      "application/vnd.oci.image.layer.v1.tar+gzip",
      Buffer.from("this is no gzip\n".repeat(50)),
    );
    const manifest = JSON.parse(built.manifest.bytes.toString()) as {
      layers: unknown[];
    };
    manifest.layers = [
      {
        mediaType: noise.mediaType,
        digest: noise.digest,
        size: noise.bytes.length,
      },
    ];
    await push(environment().registries.plain, repository, "noise", {
      ...built,
      blobs: [noise, built.config],
      manifest: blob(
        built.manifest.mediaType,
        Buffer.from(JSON.stringify(manifest)),
      ),
    });
    await refused(imageRef(repository, "noise"), /./);
  });

  test("layers other than the config says", async () => {
    const one = image([await layer([{ name: "one", content: "1" }])], {});
    const other = image([await layer([{ name: "other", content: "2" }])], {});
    const manifest = JSON.parse(one.manifest.bytes.toString()) as {
      layers: unknown[];
    };
    manifest.layers = (
      JSON.parse(other.manifest.bytes.toString()) as { layers: unknown[] }
    ).layers;
    await push(environment().registries.plain, repository, "swapped", {
      ...one,
      blobs: [...other.blobs.slice(0, 1), one.config],
      manifest: blob(
        one.manifest.mediaType,
        Buffer.from(JSON.stringify(manifest)),
      ),
    });
    await refused(imageRef(repository, "swapped"), /layer|diff|digest|rootfs/i);
  });

  test("an image for another architecture", async () => {
    await refused(
      imageRef("arm-only"),
      /no matching manifest for linux\/amd64/,
    );
    const single = imageRef("arm-manifest");
    const { code, stdout, stderr } = await docker([
      "run",
      "--rm",
      single,
      "true",
    ]);
    assert.notEqual(code, 0);
    assert.match(stdout + stderr, /platform|architecture|arm64/i);
    await docker(["rmi", "-f", single]);
  });
});
