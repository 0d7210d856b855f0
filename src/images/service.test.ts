import assert from "node:assert/strict";
import { chmod, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import {
  Conflict,
  InvalidParameter,
  NotFound,
  SystemError,
  Unavailable,
} from "../errors.js";
import { Filters } from "../filters.js";
import { hexOf } from "./digest.js";
import type { ImageUsage } from "./index.js";
import { noErofs } from "./layers/test-erofs.js";
import { type TestImage, TestRegistry } from "./registry/test-registry.js";
import { openService, type TestService } from "./test-service.js";

interface Setup extends TestService {
  /** Name of the repository "app" at the registry. */
  app: string;
  base: TestImage;
  /** Shares its lowest layer with base. */
  derived: TestImage;
}

/** Two images, "app:base" and "app:derived". */
async function setup(t: TestContext): Promise<Setup> {
  const registry = await TestRegistry.start(t);
  const lower = [{ name: "lower", data: "x".repeat(1000) }];
  const base = registry.add("base", {
    layers: [lower],
    config: {
      created: "2024-01-01T00:00:00.5Z",
      config: { Cmd: ["sh"], Env: ["A=1"], Labels: { kind: "base" } },
      history: [{ created_by: "ADD lower", created: "2024-01-01T00:00:00Z" }],
    },
  });
  const derived = registry.add("derived", {
    layers: [lower, [{ name: "upper", data: "y".repeat(50) }]],
    config: {
      created: "2024-02-01T00:00:00Z",
      author: "me",
      comment: "a comment",
      config: {
        Entrypoint: ["/run"],
        ExposedPorts: { "80/tcp": {} },
        Labels: { kind: "derived", level: "2" },
        Healthcheck: { Test: ["CMD", "true"], Retries: 3 },
        OnBuild: null,
      },
      history: [
        { created_by: "ADD lower", created: "2024-01-01T00:00:00Z" },
        { created_by: "ENV", empty_layer: true },
        { created_by: "ADD upper", comment: "top" },
      ],
    },
  });
  const test = await openService(t);
  const app = `${registry.host}/app`;
  await test.pull(`${app}:base`);
  await test.pull(`${app}:derived`);
  test.events.length = 0;
  return Object.assign(test, { app, base, derived });
}

function using(image: TestImage, running: boolean): ImageUsage {
  return {
    containersOf: (id) =>
      id === image.id ? [{ id: "c0ffee".repeat(11), running }] : [],
  };
}

async function tags(test: TestService): Promise<string[]> {
  const list = await test.service.list(new Filters());
  return list.flatMap(({ RepoTags }) => RepoTags).sort();
}

describe("ImageService", { skip: noErofs }, () => {
  describe("finds an image", () => {
    it("by tag, digest, ID and the beginning of its ID", async (t) => {
      const test = await setup(t);
      const { app, base } = test;
      const hex = hexOf(base.id);
      for (const name of [
        `${app}:base`,
        `${app}@${base.digest}`,
        `${app}:ignored@${base.digest}`,
        base.id,
        hex,
        hex.slice(0, 12),
        `sha256:${hex.slice(0, 12)}`,
      ]) {
        assert.equal((await test.service.get(name)).id, base.id, name);
      }
    });

    it("or says what is missing", async (t) => {
      const { service, app } = await setup(t);
      const cases: [name: string, error: Error][] = [
        ["nope", new NotFound("No such image: nope:latest")],
        [app, new NotFound(`No such image: ${app}:latest`)],
        [
          "sha256:" + "0".repeat(64),
          new NotFound(`No such image: sha256:${"0".repeat(64)}`),
        ],
        ["", new InvalidParameter("invalid reference format")],
        [
          "Up",
          new InvalidParameter(
            "invalid reference format: repository name (library/Up) must be lowercase",
          ),
        ],
      ];
      for (const [name, error] of cases) {
        await assert.rejects(service.get(name), error);
      }
      await assert.rejects(service.disk("sha256:" + "0".repeat(64)), NotFound);
    });
  });

  it("gives containers the config without what is null", async (t) => {
    const { service, app } = await setup(t);
    const { config, architecture, os } = await service.get(`${app}:derived`);
    assert.deepEqual(config, {
      Entrypoint: ["/run"],
      ExposedPorts: { "80/tcp": {} },
      Labels: { kind: "derived", level: "2" },
      Healthcheck: { Test: ["CMD", "true"], Retries: 3 },
    });
    assert.deepEqual([architecture, os], ["amd64", "linux"]);
  });

  it("inspects", async (t) => {
    const { service, app, derived } = await setup(t);
    const view = await service.inspect(`${app}:derived`);
    assert.equal(view.Id, derived.id);
    assert.deepEqual(view.RepoTags, [`${app}:derived`]);
    assert.deepEqual(view.RepoDigests, [`${app}@${derived.digest}`]);
    assert.equal(view.Created, "2024-02-01T00:00:00Z");
    assert.equal(view.Author, "me");
    assert.equal(view.Comment, "a comment");
    assert.equal(view.Size, 1050);
    assert.deepEqual(view.RootFS, {
      Type: "layers",
      Layers: derived.layers.map(({ diffId }) => diffId),
    });
    assert.equal(view.GraphDriver.Name, "erofs");
    assert.deepEqual(view.Config?.["Entrypoint"], ["/run"]);
    assert.equal(view.Config?.["Cmd"], null);
  });

  it("tells an image's history, newest first", async (t) => {
    const { service, app, derived } = await setup(t);
    const history = await service.history(`${app}:derived`);
    assert.deepEqual(
      history.map(({ Id, CreatedBy, Size, Tags, Comment }) => [
        Id,
        CreatedBy,
        Size,
        Tags,
        Comment,
      ]),
      [
        [derived.id, "ADD upper", 50, [`${app}:derived`], "top"],
        ["<missing>", "ENV", 0, [], ""],
        ["<missing>", "ADD lower", 1000, [], ""],
      ],
    );
    assert.equal(history[2]?.Created, 1_704_067_200);
  });

  describe("lists images", () => {
    it("newest first, with what they share when asked", async (t) => {
      const { service, derived, base } = await setup(t);
      const plain = await service.list(new Filters());
      assert.deepEqual(
        plain.map(({ Id }) => Id),
        [derived.id, base.id],
      );
      assert.deepEqual(
        plain.map(({ Size }) => Size),
        [1050, 1000],
      );
      assert.deepEqual(
        plain.map(({ SharedSize }) => SharedSize),
        [-1, -1],
      );
      assert.deepEqual(
        plain.map(({ Containers }) => Containers),
        [-1, -1],
      );
      service.useContainers(using(base, false));
      const full = await service.list(new Filters(), {
        sharedSize: true,
        countContainers: true,
      });
      assert.deepEqual(
        full.map(({ SharedSize }) => SharedSize),
        [1000, 1000],
      );
      assert.deepEqual(
        full.map(({ Containers }) => Containers),
        [0, 1],
      );
    });

    it("that pass the filters", async (t) => {
      const { service, app, base, derived } = await setup(t);
      await service.tag(`${app}:base`, "local/other", "1");
      const cases: [filters: [string, string[]][], found: string[]][] = [
        [[["label", ["kind"]]], [derived.id, base.id]],
        [[["label", ["kind=base"]]], [base.id]],
        [[["label", ["kind", "level=2"]]], [derived.id]],
        [[["label!", ["kind=base"]]], [derived.id]],
        [[["before", [`${app}:derived`]]], [base.id]],
        [[["since", [base.id]]], [derived.id]],
        [[["reference", ["local/other"]]], [base.id]],
        [[["reference", ["local/*:1"]]], [base.id]],
        [[["reference", ["local"]]], []],
        [[["reference", ["*/app:d*"]]], [derived.id]],
        [[["reference", ["*/app"]]], [derived.id, base.id]],
        [[["dangling", ["true"]]], []],
        [[["dangling", ["false"]]], [derived.id, base.id]],
      ];
      for (const [fields, found] of cases) {
        const list = await service.list(new Filters(fields));
        assert.deepEqual(
          list.map(({ Id }) => Id),
          found,
          JSON.stringify(fields),
        );
      }
      const [only] = await service.list(
        new Filters([["reference", ["local/other"]]]),
      );
      assert.deepEqual(only?.RepoTags, ["local/other:1"]);
      assert.deepEqual(only?.RepoDigests, []);
      const until = Date.parse("2024-01-15");
      assert.deepEqual(
        (await service.list(new Filters(), { until })).map(({ Id }) => Id),
        [base.id],
      );
    });

    it("or refuses filters that make no sense", async (t) => {
      const { service } = await setup(t);
      await assert.rejects(
        service.list(new Filters([["nope", ["x"]]])),
        InvalidParameter,
      );
      await assert.rejects(
        service.list(new Filters([["dangling", ["maybe"]]])),
        InvalidParameter,
      );
      await assert.rejects(
        service.list(new Filters([["reference", ["[a"]]])),
        InvalidParameter,
      );
      await assert.rejects(
        service.list(new Filters([["since", ["missing"]]])),
        NotFound,
      );
    });
  });

  describe("tags", () => {
    it("an image by any of its names", async (t) => {
      const test = await setup(t);
      await test.service.tag(hexOf(test.base.id).slice(0, 12), "mine", "");
      await test.service.tag("mine", "127.0.0.1:9/mine:x", "");
      await test.service.tag("mine", "mine:ignored", "2");
      const { repoTags } = await test.service.get(test.base.id);
      assert.deepEqual(
        repoTags,
        [
          "127.0.0.1:9/mine:x",
          `${test.app}:base`,
          "mine:2",
          "mine:latest",
        ].sort(),
      );
      assert.deepEqual(
        test.events.map(({ Action, Actor }) => [
          Action,
          Actor.ID,
          Actor.Attributes["name"],
        ]),
        [
          ["tag", test.base.id, "mine:latest"],
          ["tag", test.base.id, "127.0.0.1:9/mine:x"],
          ["tag", test.base.id, "mine:2"],
        ],
      );
      const { Metadata } = await test.service.inspect("mine");
      assert.match(Metadata.LastTagTime, /^20\d\d-/);
    });

    it("and leaves without a name the image that had it", async (t) => {
      const test = await setup(t);
      await test.service.tag(`${test.app}:base`, "x", "");
      await test.service.remove(`${test.app}:base`, false);
      await test.service.tag(`${test.app}:derived`, "x", "");
      const dangling = await test.service.list(
        new Filters([["dangling", ["true"]]]),
      );
      assert.deepEqual(
        dangling.map(({ Id }) => Id),
        [test.base.id],
      );
      const service = await test.reopen();
      assert.equal((await service.list(new Filters())).length, 2);
    });

    it("refuses what is no tag, changing nothing", async (t) => {
      const test = await setup(t);
      const before = await tags(test);
      const cases: [
        image: string,
        repository: string,
        tag: string,
        error: RegExp,
      ][] = [
        ["missing", "x", "", /No such image: missing:latest/],
        [`${test.app}:base`, "X", "", /must be lowercase/],
        [`${test.app}:base`, "x", "a b", /invalid tag format/],
        [`${test.app}:base`, `x@${test.base.digest}`, "", /digest reference/],
        [`${test.app}:base`, "sha256", "1", /ambiguous tag/],
      ];
      for (const [image, repository, tag, error] of cases) {
        await assert.rejects(test.service.tag(image, repository, tag), error);
      }
      assert.deepEqual(await tags(test), before);
    });
  });

  describe("removes", () => {
    it("an image with its last name, and the files nobody else needs", async (t) => {
      const test = await setup(t);
      const { app, derived, base } = test;
      const items = await test.service.remove(`${app}:derived`, false);
      assert.deepEqual(items.slice(0, 3), [
        { Untagged: `${app}:derived` },
        { Untagged: `${app}@${derived.digest}` },
        { Deleted: derived.id },
      ]);
      // The chain of both layers; the lower one is still the other image's.
      assert.equal(items.length, 4);
      assert.deepEqual(
        test.events.map(({ Action }) => Action),
        ["untag", "untag", "delete"],
      );
      const files = (await test.files()).join("\n");
      assert.ok(
        !files.includes(hexOf(derived.layers[1]?.diffId ?? "sha256:x")),
      );
      assert.ok(files.includes(hexOf(base.layers[0]?.diffId ?? "sha256:x")));
      await test.service.disk(base.id);
      await test.service.remove(`${app}:base`, false);
      assert.deepEqual(await test.files(), []);
    });

    it("only the name while there are others", async (t) => {
      const test = await setup(t);
      await test.service.tag(`${test.app}:base`, "other", "");
      assert.deepEqual(await test.service.remove("other", false), [
        { Untagged: "other:latest" },
      ]);
      await test.service.get(`${test.app}:base`);
    });

    it("by ID an image with its names, when they are of one repository", async (t) => {
      const test = await setup(t);
      const id = test.base.id;
      await test.service.tag(`${test.app}:base`, "other", "");
      await assert.rejects(
        test.service.remove(id, false),
        new Conflict(
          `conflict: unable to delete ${hexOf(id).slice(0, 12)} (must be forced) - image is referenced in multiple repositories`,
        ),
      );
      const items = await test.service.remove(id, true);
      assert.equal(items.filter((item) => "Untagged" in item).length, 3);
      await assert.rejects(test.service.get(id), NotFound);
    });

    it("nothing a container uses, unless forced", async (t) => {
      const test = await setup(t);
      const { app, base, service } = test;
      const short = hexOf(base.id).slice(0, 12);
      service.useContainers(using(base, false));
      await assert.rejects(
        service.remove(`${app}:base`, false),
        new Conflict(
          `conflict: unable to remove repository reference "${app}:base" (must force) - container c0ffeec0ffee is using its referenced image ${short}`,
        ),
      );
      await assert.rejects(
        service.remove(short, false),
        new Conflict(
          `conflict: unable to delete ${short} (must be forced) - image is being used by stopped container c0ffeec0ffee`,
        ),
      );
      service.useContainers(using(base, true));
      await assert.rejects(
        service.remove(short, true),
        new Conflict(
          `conflict: unable to delete ${short} (cannot be forced) - image is being used by running container c0ffeec0ffee`,
        ),
      );
      assert.equal((await service.get(base.id)).repoTags.length, 1);
    });

    it("only the names of an image a running container uses, when forced by name", async (t) => {
      const test = await setup(t);
      const { app, base, service } = test;
      service.useContainers(using(base, true));
      const items = await service.remove(`${app}:base`, true);
      assert.ok(items.every((item) => "Untagged" in item));
      const { repoTags } = await service.get(base.id);
      assert.deepEqual(repoTags, []);
      await test.reopen();
      await test.service.get(base.id);
    });

    it("an image a stopped container stands on, keeping its files until the container is gone", async (t) => {
      const test = await setup(t);
      const { app, base } = test;
      test.service.useContainers(using(base, false));
      const items = await test.service.remove(`${app}:base`, true);
      assert.ok(items.some((item) => "Deleted" in item));
      await assert.rejects(test.service.get(base.id), NotFound);
      assert.equal((await test.service.list(new Filters())).length, 1);
      const service = await test.reopen();
      service.useContainers(using(base, false));
      await service.releaseUnused();
      await service.disk(base.id);
      service.useContainers({ containersOf: () => [] });
      await service.releaseUnused();
      await assert.rejects(service.disk(base.id), NotFound);
    });

    it("those files with the last container", async (t) => {
      const test = await setup(t);
      const { service, base, app } = test;
      service.useContainers(using(base, false));
      await service.remove(`${app}:base`, true);
      await service.remove(`${app}:derived`, true);
      assert.notDeepEqual(await test.files(), []);
      service.useContainers({ containersOf: () => [] });
      test.bus.publish({
        Type: "container",
        Action: "destroy",
        Actor: { ID: "c", Attributes: {} },
      });
      const deadline = Date.now() + 5000;
      while ((await test.files()).length > 0) {
        assert.ok(Date.now() < deadline, "files are still there");
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    });

    it("says what is missing", async (t) => {
      const { service } = await setup(t);
      await assert.rejects(
        service.remove("nope", true),
        new NotFound("No such image: nope:latest"),
      );
    });
  });

  describe("prunes", () => {
    it("what has no tag, or all that no container uses", async (t) => {
      const test = await setup(t);
      const { app, service, base, derived } = test;
      assert.deepEqual(await service.prune(new Filters()), {
        ImagesDeleted: null,
        SpaceReclaimed: 0,
      });
      await service.tag(`${app}:base`, `${app}`, "derived");
      const first = await service.prune(new Filters());
      assert.equal(first.SpaceReclaimed, 50);
      assert.ok(
        first.ImagesDeleted?.some(
          (item) => "Deleted" in item && item.Deleted === derived.id,
        ),
      );
      service.useContainers(using(base, false));
      const all = new Filters([["dangling", ["false"]]]);
      assert.equal((await service.prune(all)).ImagesDeleted, null);
      service.useContainers({ containersOf: () => [] });
      const labelled = new Filters([
        ["dangling", ["false"]],
        ["label!", ["kind=base"]],
      ]);
      assert.equal((await service.prune(labelled)).ImagesDeleted, null);
      assert.equal(
        (await service.prune(all, Date.parse("2023-01-01"))).ImagesDeleted,
        null,
      );
      const { SpaceReclaimed } = await service.prune(all);
      assert.equal(SpaceReclaimed, 1000);
      assert.deepEqual(await test.files(), []);
      assert.ok(
        test.events.some(
          ({ Action, Actor }) =>
            Action === "prune" && Actor.Attributes["reclaimed"] === "1000",
        ),
      );
    });
  });

  it("looks into a registry without pulling", async (t) => {
    const registry = await TestRegistry.start(t);
    const image = registry.add("1");
    const test = await openService(t);
    const found = await test.service.distribution(
      `${registry.host}/app:1`,
      { username: "", password: "", identityToken: "", registryToken: "" },
      new AbortController().signal,
    );
    assert.deepEqual(found, {
      Descriptor: {
        mediaType: image.mediaType,
        digest: image.digest,
        size: image.size,
      },
      Platforms: [{ architecture: "amd64", os: "linux" }],
    });
    assert.deepEqual(await test.files(), []);
  });

  describe("opens a store", () => {
    it("whose records are damaged, setting them aside and keeping the rest", async (t) => {
      const test = await setup(t);
      const root = join(test.dataRoot, "images");
      const name = `${hexOf(test.derived.id)}.json`;
      await writeFile(join(root, "images", name), '{"version":1,"id":');
      const service = await test.reopen();
      assert.deepEqual(
        (await service.list(new Filters())).map(({ Id }) => Id),
        [test.base.id],
      );
      assert.ok(
        (await readdir(join(root, "images"))).some((file) =>
          file.startsWith(`${name}.damaged-`),
        ),
      );
      await service.disk(test.base.id);
    });

    it("whose names are damaged, keeping the images", async (t) => {
      const test = await setup(t);
      await writeFile(
        join(test.dataRoot, "images", "repositories.json"),
        "junk",
      );
      const service = await test.reopen();
      const list = await service.list(new Filters());
      assert.deepEqual(
        list.map(({ Id, RepoTags }) => [Id, RepoTags]),
        [
          [test.derived.id, []],
          [test.base.id, []],
        ],
      );
    });

    it("that lost a layer or a config, dropping the image that needs it", async (t) => {
      const test = await setup(t);
      const root = join(test.dataRoot, "images");
      await rm(
        join(
          root,
          "layers",
          `${hexOf(test.derived.layers[1]?.diffId ?? "sha256:x")}.erofs`,
        ),
      );
      const service = await test.reopen();
      assert.deepEqual(
        (await service.list(new Filters())).map(({ Id }) => Id),
        [test.base.id],
      );
      const config = join(root, "blobs", "sha256", hexOf(test.base.id));
      await chmod(config, 0o600);
      await writeFile(
        config,
        (await readFile(config, "utf8")).replace("sh", "id"),
      );
      assert.deepEqual(await (await test.reopen()).list(new Filters()), []);
    });

    it("unless a newer hull wrote it", async (t) => {
      const test = await setup(t);
      await writeFile(
        join(test.dataRoot, "images", "version.json"),
        '{"version":2}',
      );
      await assert.rejects(test.reopen(), (error) => {
        assert.ok(error instanceof SystemError);
        assert.match(
          error.message,
          /is of version 2, this hull knows version 1/,
        );
        return true;
      });
    });
  });
});

describe("ImageService without mkfs.erofs", () => {
  it("lists, and says what pulling needs before it downloads", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.add("1");
    const test = await openService(t, { mkfsErofs: ["/nowhere/mkfs.erofs"] });
    assert.deepEqual(await test.service.list(new Filters()), []);
    await assert.rejects(test.pull(`${registry.host}/a:1`), Unavailable);
    assert.deepEqual(registry.requests, []);
  });
});
