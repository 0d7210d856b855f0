import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { api, messageOf } from "./harness/api.js";
import {
  docker,
  dockerOk,
  inspect,
  removeContainers,
  uniqueName,
} from "./harness/docker.js";
import { busybox, environment, imageRef } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";
import { CREDENTIALS } from "./harness/registry.js";

interface ImageInspect {
  Id: string;
  RepoTags: string[];
  RepoDigests: string[];
  Author: string;
  Comment: string;
  RootFS: { Layers: string[] };
  Config: {
    Cmd: string[] | null;
    Env: string[];
    Labels: Record<string, string> | null;
  };
}

const image = (name: string) => inspect<ImageInspect>(name);
const has = (program: string) => existsSync(`/usr/bin/${program}`);

describe("images that are made here", () => {
  const source = uniqueName("commit");
  const committed = `${source}:made`;
  let folder = "";
  const file = (name: string) => path.join(folder, name);

  before(async () => {
    folder = mkdtempSync(path.join(environment().directory, "transfer-"));
    await dockerOk([
      "run",
      "--name",
      source,
      imageRef("layers"),
      "sh",
      "-c",
      "echo new > /data/added && rm /data/kept && rm -r /data/opaque && mkdir /data/opaque && echo o > /data/opaque/own && " +
        "ln /data/added /data/linked && ln -s /etc /data/to-etc && chown 1000:29 /data/added && mkdir /made && chmod 1777 /made",
    ]);
    await dockerOk([
      "commit",
      "-a",
      "An Author <a@example.org>",
      "-m",
      "a message",
      "--change",
      'CMD ["cat", "/data/added"]',
      "--change",
      'ENV ADDED="two words"',
      "--change",
      "LABEL made=here",
      source,
      committed,
    ]);
  });
  after(async () => {
    await removeContainers(source);
    rmSync(folder, { recursive: true, force: true });
  });

  test("docker commit keeps what the container changed, and only that", async () => {
    const made = await image(committed);
    const base = await image(imageRef("layers"));
    assert.equal(made.Author, "An Author <a@example.org>");
    assert.equal(made.Comment, "a message");
    assert.deepEqual(made.Config.Cmd, ["cat", "/data/added"]);
    assert.ok(made.Config.Env.includes("ADDED=two words"), "the variable");
    assert.deepEqual(made.Config.Labels, { made: "here" });
    assert.deepEqual(made.RootFS.Layers.slice(0, -1), base.RootFS.Layers);
    const script =
      "cat /data/added /data/linked; ls /data/opaque; stat -c '%a %u:%g %h' /made /data/added; readlink /data/to-etc; ls -d /data/kept; echo $ADDED";
    const { stdout } = await docker([
      "run",
      "--rm",
      committed,
      "sh",
      "-c",
      script,
    ]);
    assert.equal(
      stdout,
      "new\nnew\nown\n1777 0:0 2\n644 1000:29 2\n/etc\ntwo words\n",
    );
    const history = await dockerOk([
      "history",
      "--format",
      "{{.Comment}}",
      committed,
    ]);
    assert.equal(history.split("\n")[0], "a message");
  });

  test("docker commit of a running container pauses it for the while", async () => {
    const name = uniqueName("commit-running");
    await dockerOk([
      "run",
      "-d",
      "--name",
      name,
      busybox(),
      "sh",
      "-c",
      "echo x > /tmp/x; sleep 10000",
    ]);
    try {
      const id = await dockerOk(["commit", name]);
      assert.match(id, /^sha256:[0-9a-f]{64}$/);
      await eventually(async () =>
        assert.equal(await dockerOk(["exec", name, "cat", "/tmp/x"]), "x"),
      );
      assert.equal((await inspect(name)).State.Status, "running");
      assert.match(
        await dockerOk([
          "images",
          "-q",
          "--no-trunc",
          "--filter",
          "dangling=true",
        ]),
        new RegExp(id),
      );
    } finally {
      await removeContainers(name);
    }
  });

  test("docker save and load: the same image comes back, under its names", async () => {
    const before = await image(committed);
    await dockerOk(["tag", committed, `${source}:second`]);
    await dockerOk(["save", "-o", file("saved.tar"), source, busybox()]);
    const names = execFileSync("tar", ["-tf", file("saved.tar")], {
      encoding: "utf8",
    });
    for (const name of [
      "manifest.json",
      "index.json",
      "oci-layout",
      "repositories",
    ])
      assert.match(names, new RegExp(`^${name}$`, "m"));
    await dockerOk(["rm", source]);
    await dockerOk(["rmi", committed, `${source}:second`]);
    writeFileSync(
      file("saved.tar.gz"),
      gzipSync(readFileSync(file("saved.tar")), { level: 1 }),
    );
    const out = await dockerOk(["load", "-i", file("saved.tar.gz")]);
    assert.deepEqual(
      out
        .split("\n")
        .filter((line) => line.includes(source))
        .sort(),
      [`Loaded image: ${source}:made`, `Loaded image: ${source}:second`],
    );
    const back = await image(committed);
    assert.equal(back.Id, before.Id);
    assert.deepEqual(back.RootFS, before.RootFS);
  });

  test("docker export and import make an image of one layer", async () => {
    const name = uniqueName("imported");
    await dockerOk(["create", "--name", name, busybox(), "true"]);
    const { bytes } = await docker(["export", name]);
    await removeContainers(name);
    const id = await dockerOk(
      [
        "import",
        "-m",
        "brought in",
        "-c",
        'CMD ["echo", "imported"]',
        "-",
        `${name}:v1`,
      ],
      { stdin: bytes },
    );
    const made = await image(`${name}:v1`);
    assert.equal(made.Id, id);
    assert.equal(made.RootFS.Layers.length, 1);
    assert.equal(made.Comment, "brought in");
    assert.equal(await dockerOk(["run", "--rm", `${name}:v1`]), "imported");
    await dockerOk(["rmi", `${name}:v1`]);
  });

  test("skopeo and umoci read what save writes, and load reads what skopeo writes", async (t) => {
    if (!has("skopeo") || !has("umoci"))
      return t.skip("skopeo and umoci are not installed");
    await dockerOk(["save", "-o", file("one.tar"), committed]);
    const skopeo = (...args: string[]) =>
      execFileSync("skopeo", ["--insecure-policy", ...args], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "pipe"],
      });
    const { RootFS } = await image(committed);
    for (const transport of ["docker-archive", "oci-archive"]) {
      const config = JSON.parse(
        skopeo("inspect", "--config", `${transport}:${file("one.tar")}`),
      ) as { rootfs: { diff_ids: string[] } };
      assert.deepEqual(config.rootfs.diff_ids, RootFS.Layers);
    }
    skopeo(
      "copy",
      `docker-archive:${file("one.tar")}`,
      `oci:${file("layout")}:tag`,
    );
    execFileSync(
      "umoci",
      [
        "unpack",
        "--rootless",
        "--image",
        `${file("layout")}:tag`,
        file("bundle"),
      ],
      { stdio: "pipe" },
    );
    assert.equal(
      readFileSync(path.join(file("bundle"), "rootfs/data/added"), "utf8"),
      "new\n",
    );
    for (const [form, name] of [
      ["docker-archive", "from-docker"],
      ["oci-archive", "from-oci"],
    ] as const) {
      skopeo(
        "copy",
        "--src-tls-verify=false",
        `docker://${imageRef("layers")}`,
        `${form}:${file(`${name}.tar`)}:localhost/${name}:x`,
      );
      const out = await dockerOk(["load", "-i", file(`${name}.tar`)]);
      const id = /^Loaded image(?: ID)?: (\S+)$/m.exec(out)?.[1] ?? "";
      assert.equal(
        await dockerOk(["run", "--rm", id, "cat", "/data/changed"]),
        "second",
      );
      await dockerOk(["rmi", "-f", id]);
    }
  });

  test("what load refuses", async () => {
    const load = (body: Buffer) =>
      api("POST", "/images/load", body, {
        "content-type": "application/x-tar",
      });
    const tar = (...args: string[]) =>
      execFileSync("tar", ["-C", folder, "-c", ...args]);
    writeFileSync(file("other"), "x");
    const refused = await load(tar("other"));
    assert.equal(refused.status, 400);
    assert.match(messageOf(refused), /does not contain a manifest.json/);
    for (const [text, words] of [
      ["[{", /manifest.json/],
      [
        JSON.stringify([{ Config: "../../../../etc/passwd", Layers: [] }]),
        /does not exist/,
      ],
      [
        JSON.stringify([{ Config: "manifest.json", Layers: ["x"] }]),
        /malformed|does not/,
      ],
    ] as const) {
      writeFileSync(file("manifest.json"), text);
      const answer = await load(tar("manifest.json"));
      assert.ok(answer.status >= 400, `${text}: ${answer.status}`);
      assert.match(messageOf(answer), words);
    }
    assert.equal((await load(Buffer.from("no archive at all"))).status, 400);
    assert.equal((await api("GET", "/images/get?names=nobody")).status, 404);
    assert.equal((await api("POST", `/commit?container=nobody`)).status, 404);
    assert.equal(
      (
        await api(
          "POST",
          "/images/create?fromSrc=-&repo=x&changes=RUN%20x",
          Buffer.alloc(1024),
        )
      ).status,
      400,
    );
  });

  test("docker push to registries without and with authentication, and back", async () => {
    const { plain, basic, token } = environment().registries;
    for (const registry of [plain, basic, token]) {
      const name = `${registry.host}/pushed-${source}:v1`;
      await dockerOk(["tag", committed, name]);
      if (registry.user) {
        const refused = await docker(["push", name]);
        assert.equal(refused.code, 1);
        assert.match(
          refused.stderr,
          /no basic auth credentials|denied|unauthorized|authentication required/,
        );
        await dockerOk(
          ["login", "-u", CREDENTIALS.user, "--password-stdin", registry.host],
          { stdin: CREDENTIALS.password },
        );
      }
      const first = await dockerOk(["push", name]);
      assert.match(first, /^The push refers to repository \[/);
      assert.match(first, /: Pushed$/m);
      const digest =
        /^v1: digest: (sha256:[0-9a-f]{64}) size: \d+$/m.exec(first)?.[1] ?? "";
      assert.match(await dockerOk(["push", name]), /: Layer already exists$/m);
      const byDigest = name.replace(/:v1$/, `@${digest}`);
      assert.ok(
        (await image(committed)).RepoDigests.includes(byDigest),
        "the digest is a name",
      );
      assert.match(
        await dockerOk(["images", "--digests", name.replace(/:v1$/, "")]),
        new RegExp(digest),
      );
      await dockerOk(["rmi", name]);
      await dockerOk(["pull", name]);
      assert.equal((await image(name)).Id, (await image(committed)).Id);
      await dockerOk(["rmi", name]);
      if (registry.user) await dockerOk(["logout", registry.host]);
    }
    const missing = await docker(["push", `${plain.host}/nobody:v1`]);
    assert.equal(missing.code, 1);
    assert.match(
      missing.stderr,
      /An image does not exist locally with the tag/,
    );
  });
});
