import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { api, messageOf } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import {
  docker,
  dockerEnv,
  dockerOk,
  inspect,
  start,
  uniqueName,
} from "./harness/docker.js";
import { environment, imageRef } from "./harness/environment.js";
import { image, layer } from "./harness/image-builder.js";
import { busyboxLayer } from "./harness/images.js";
import { CREDENTIALS, push } from "./harness/registry.js";
import { terminal } from "./harness/terminal.js";

interface ImageInspect {
  Id: string;
  RepoTags: string[];
  RepoDigests: string[];
  Architecture: string;
  Os: string;
  Size: number;
  Created: string;
  Author: string;
  RootFS: { Type: string; Layers: string[] };
  Config: {
    Env: string[];
    Cmd: string[] | null;
    Entrypoint: string[] | null;
    User: string;
    WorkingDir: string;
    Labels: Record<string, string> | null;
    StopSignal?: string;
  };
}

const inspectImage = (name: string) => inspect<ImageInspect>(name);

describe("docker pull", () => {
  test("shows each layer, the digest and the status; a second pull says it is up to date", async () => {
    const name = imageRef("layers");
    await docker(["rmi", "-f", name]);
    const first = await docker(["pull", name]);
    assert.equal(first.code, 0, first.stderr);
    const lines = first.stdout.split("\n");
    assert.equal(lines[0], "latest: Pulling from layers");
    assert.equal(
      first.stdout.match(
        /^[0-9a-f]{12}: Pull complete$|^[0-9a-f]{12}: Already exists$/gm,
      )?.length,
      3,
    );
    const digest = /^Digest: (sha256:[0-9a-f]{64})$/m.exec(first.stdout)?.[1];
    assert.ok(digest, first.stdout);
    assert.ok(
      lines.includes(`Status: Downloaded newer image for ${name}`),
      first.stdout,
    );
    assert.equal(lines.filter(Boolean).at(-1), name);

    const second = await docker(["pull", name]);
    assert.equal(second.code, 0);
    assert.match(second.stdout, new RegExp(`^Digest: ${digest}$`, "m"));
    assert.match(second.stdout, /^Status: Image is up to date for /m);
    assert.deepEqual((await inspectImage(name)).RepoDigests, [
      `${name.replace(/:latest$/, "")}@${digest}`,
    ]);
  });

  test("-q prints the reference only", async () => {
    assert.equal(
      await dockerOk(["pull", "-q", imageRef("busybox")]),
      imageRef("busybox"),
    );
  });

  test("by digest", async () => {
    const name = imageRef("zstd");
    await dockerOk(["pull", "-q", name]);
    const [byDigest] = (await inspectImage(name)).RepoDigests;
    assert.ok(byDigest);
    await dockerOk(["rmi", name]);
    await dockerOk(["pull", "-q", byDigest]);
    const pulled = await inspectImage(byDigest);
    assert.deepEqual(pulled.RepoTags, []);
    assert.deepEqual(pulled.RepoDigests, [byDigest]);
    await dockerOk(["rmi", byDigest]);
  });

  test("on a terminal draws progress bars", async () => {
    const name = imageRef("plain");
    await docker(["rmi", "-f", name]);
    const screen = terminal(["pull", name]);
    assert.equal(await screen.exit, 0);
    assert.match(screen.screen, /Pull complete/);
    // The cursor goes up to a layer's line and clears it, again and again.
    assert.ok(
      screen.screen.includes("\x1b[2K"),
      JSON.stringify(screen.screen.slice(0, 400)),
    );
  });

  test("gzip, zstd and plain layers, schema 2 and OCI, all give an image that runs", async () => {
    for (const [name, marker] of [
      ["zstd", "zstd"],
      ["plain", "plain"],
      ["multi", "amd64"],
      ["multi-schema2", "list"],
    ] as const) {
      assert.equal(
        await dockerOk(["run", "--rm", imageRef(name), "cat", "/marker"]),
        marker,
      );
    }
  });

  test("an unknown tag", async () => {
    const name = imageRef("busybox", "no-such-tag");
    const { code, stderr } = await docker(["pull", name]);
    assert.equal(code, 1);
    assert.equal(
      stderr.trim(),
      `Error response from daemon: manifest for ${name} not found: manifest unknown: manifest unknown`,
    );
  });

  test("an unknown repository", async () => {
    const { code, stderr } = await docker([
      "pull",
      imageRef("no/such/repository"),
    ]);
    assert.equal(code, 1);
    assert.match(
      stderr,
      /Error response from daemon: .*(not found|does not exist)/,
    );
  });

  test("an invalid reference", async () => {
    const answer = await api(
      "POST",
      "/images/create?fromImage=library/UPPER&tag=latest",
    );
    assert.equal(answer.status, 400);
    assert.match(messageOf(answer), /invalid reference format/);
  });

  test("a registry that is not there", async () => {
    const { code, stderr } = await docker(["pull", "127.0.0.1:1/busybox"]);
    assert.equal(code, 1);
    assert.match(
      stderr,
      /Error response from daemon: .*(refused|ECONNREFUSED)/,
    );
  });

  test("for another platform, when asked", async () => {
    const name = imageRef("multi");
    await docker(["rmi", "-f", name]);
    await dockerOk(["pull", "-q", "--platform", "linux/arm64", name]);
    assert.equal((await inspectImage(name)).Architecture, "arm64");
    await dockerOk(["rmi", "-f", name]);
    await dockerOk(["pull", "-q", name]);
    assert.equal((await inspectImage(name)).Architecture, "amd64");
  });

  test("an index without this platform is refused, and nothing is left of it", async () => {
    const name = imageRef("arm-only");
    const { code, stderr } = await docker(["pull", name]);
    assert.equal(code, 1);
    assert.match(stderr, /no matching manifest for linux\/amd64/);
    assert.equal((await docker(["image", "inspect", name])).code, 1);
  });

  test("two pulls of one image at the same time", async () => {
    const name = imageRef("layers");
    await docker(["rmi", "-f", name]);
    const results = await Promise.all(
      [1, 2, 3].map(() => docker(["pull", name])),
    );
    for (const { code, stderr } of results) assert.equal(code, 0, stderr);
  });

  test("a pull whose client goes away can be repeated", async () => {
    const name = imageRef("layers");
    await docker(["rmi", "-f", name]);
    const pull = start(["pull", name]);
    await pull.stdoutMatches(/Pulling from/);
    pull.kill("SIGKILL");
    await pull.result;
    await dockerOk(["pull", name]);
  });
});

describe("registries that ask who you are", () => {
  for (const kind of ["basic", "token"] as const) {
    test(`${kind} authentication`, async () => {
      const registry = environment().registries[kind];
      const name = `${registry.host}/private/busybox:latest`;
      await docker(["logout", registry.host]);

      const denied = await docker(["pull", name]);
      assert.equal(denied.code, 1);
      assert.match(
        denied.stderr,
        /no basic auth credentials|unauthorized|access denied|denied: requested access/,
      );

      const wrong = await docker(
        ["login", "-u", CREDENTIALS.user, "--password-stdin", registry.host],
        { stdin: "wrong" },
      );
      assert.equal(wrong.code, 1);
      assert.match(
        wrong.stderr,
        /unauthorized|incorrect username or password/i,
      );

      const login = await docker(
        ["login", "-u", CREDENTIALS.user, "--password-stdin", registry.host],
        { stdin: CREDENTIALS.password },
      );
      assert.equal(login.code, 0, login.stderr);
      assert.match(login.stdout, /Login Succeeded/);
      await dockerOk(["pull", "-q", name]);
      await dockerOk(["rmi", name]);
      await docker(["logout", registry.host]);
    });
  }

  test(
    "TLS with an authority of its own, known and unknown",
    { skip: !environment().root },
    async () => {
      const { tls, untrusted } = environment().registries;
      assert.ok(tls && untrusted);
      await dockerOk(["pull", "-q", `${tls.host}/private/busybox:latest`]);
      const refused = await docker([
        "pull",
        `${untrusted.host}/private/busybox:latest`,
      ]);
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /certificate|x509/i);
      await dockerOk(["rmi", `${tls.host}/private/busybox:latest`]);
    },
  );
});

describe("local images", () => {
  before(async () => {
    for (const name of ["busybox", "layers", "configured"]) {
      await dockerOk(["pull", "-q", imageRef(name)]);
    }
  });

  test("inspect shows config, layers and names as the registry has them", async () => {
    const configured = await inspectImage(imageRef("configured"));
    assert.equal(configured.Os, "linux");
    assert.equal(configured.Architecture, "amd64");
    assert.deepEqual(configured.Config.Entrypoint, ["/bin/echo", "entry"]);
    assert.deepEqual(configured.Config.Cmd, ["default", "arguments"]);
    assert.equal(configured.Config.User, "user");
    assert.equal(configured.Config.WorkingDir, "/work/dir");
    assert.deepEqual(configured.Config.Labels, {
      "org.example.from": "image",
      shared: "image",
    });
    assert.equal(configured.Config.StopSignal, "SIGINT");
    assert.equal(configured.RootFS.Type, "layers");
    assert.ok(configured.Size > 1_000_000);
    assert.deepEqual(configured.RepoTags, [imageRef("configured")]);

    const built = image([await busyboxLayer()], {});
    assert.deepEqual(configured.RootFS.Layers, built.diffIds);
    // By ID, with and without its prefix, shortened or not.
    for (const id of [
      configured.Id,
      configured.Id.slice(7),
      configured.Id.slice(7, 19),
    ]) {
      assert.equal((await inspectImage(id)).Id, configured.Id);
    }
  });

  test("an unknown image", async () => {
    const { code, stderr } = await docker([
      "image",
      "inspect",
      "no-such-image",
    ]);
    assert.equal(code, 1);
    assert.match(stderr, /No such image: no-such-image/i);
    const answer = await api("GET", "/images/no-such-image/json");
    assert.equal(answer.status, 404);
    assert.equal(messageOf(answer), "No such image: no-such-image:latest");
  });

  test("images lists, filters and formats", async () => {
    const all = await dockerOk([
      "images",
      "--format",
      "{{.Repository}}:{{.Tag}} {{.ID}}",
    ]);
    const id = (await inspectImage(imageRef("layers"))).Id;
    assert.ok(
      all.split("\n").includes(`${imageRef("layers")} ${id.slice(7, 19)}`),
      all,
    );
    assert.equal(
      await dockerOk(["images", "-q", "--no-trunc", imageRef("layers")]),
      id,
    );
    const filtered = await dockerOk([
      "images",
      "--filter",
      "reference=*/config*",
      "--format",
      "{{.Repository}}",
    ]);
    assert.equal(filtered, imageRef("configured").replace(/:latest$/, ""));
    const labelled = await dockerOk([
      "images",
      "-q",
      "--no-trunc",
      "--filter",
      "label=org.example.from=image",
    ]);
    assert.equal(labelled, (await inspectImage(imageRef("configured"))).Id);
    const digests = await dockerOk([
      "images",
      "--digests",
      "--format",
      "{{.Digest}}",
      imageRef("layers").replace(/:latest$/, ""),
    ]);
    assert.match(digests, /^sha256:[0-9a-f]{64}$/);
    const bad = await docker(["images", "--filter", "nonsense=1"]);
    assert.equal(bad.code, 1);
    assert.match(bad.stderr, /invalid filter/);
  });

  test("tag gives a name more, rmi takes names and at last the image", async () => {
    const name = imageRef("layers");
    const { Id: id } = await inspectImage(name);
    await dockerOk(["tag", name, "my/copy:1.2"]);
    await dockerOk(["tag", id, "second"]);
    assert.deepEqual(
      (await inspectImage(name)).RepoTags.sort(),
      [name, "my/copy:1.2", "second:latest"].sort(),
    );
    assert.equal((await docker(["tag", name, "Not/Valid"])).code, 1);
    assert.match(
      (await docker(["tag", "no-such-image", "x"])).stderr,
      /No such image: no-such-image/,
    );

    assert.equal(await dockerOk(["rmi", "second"]), "Untagged: second:latest");
    const several = await docker(["rmi", id]);
    assert.equal(several.code, 1);
    assert.match(
      several.stderr,
      /conflict: unable to delete [0-9a-f]{12} \(must be forced\) - image is referenced in multiple repositories/,
    );
    assert.equal(
      await dockerOk(["rmi", "my/copy:1.2"]),
      "Untagged: my/copy:1.2",
    );
    const last = await dockerOk(["rmi", name]);
    assert.match(last, new RegExp(`^Untagged: ${name}$`, "m"));
    assert.match(last, new RegExp(`^Deleted: ${id}$`, "m"));
    assert.equal((await docker(["image", "inspect", id])).code, 1);
    assert.match((await docker(["rmi", name])).stderr, /No such image/);
  });

  test("an image in use is not removed", async () => {
    const name = imageRef("configured");
    const container = uniqueName("uses-image");
    await dockerOk(["create", "--name", container, name]);
    const refused = await docker(["rmi", name]);
    assert.equal(refused.code, 1);
    assert.match(
      refused.stderr,
      /conflict: unable to remove repository reference ".*" \(must force\) - container [0-9a-f]{12} is using its referenced image [0-9a-f]{12}/,
    );
    await dockerOk(["rm", container]);
    await dockerOk(["rmi", name]);
  });

  test("history shows the steps, empty ones too", async () => {
    const history = await dockerOk([
      "history",
      "--no-trunc",
      "--format",
      "{{.CreatedBy}}|{{.Comment}}|{{.Size}}",
      imageRef("busybox"),
    ]);
    const lines = history.split("\n");
    assert.equal(lines.length, 2);
    assert.equal(lines[0], 'CMD ["sh"]|buildkit.dockerfile.v0|0B');
    assert.match(lines[1] ?? "", /^COPY layer 1\|\|[\d.]+MB$/);
  });

  test("prune removes what has no name and is not used", async () => {
    const first = image([await layer([{ name: "a", content: "1" }])], {});
    const second = image([await layer([{ name: "a", content: "2" }])], {});
    const name = imageRef("moving");
    await push(environment().registries.plain, "moving", "latest", first);
    await dockerOk(["pull", "-q", name]);
    await push(environment().registries.plain, "moving", "latest", second);
    await dockerOk(["pull", "-q", name]);
    assert.equal((await inspectImage(first.config.digest)).RepoTags.length, 0);
    await dockerOk(["image", "prune", "-f"]);
    assert.equal(
      (await docker(["image", "inspect", first.config.digest])).code,
      1,
    );
    assert.equal((await inspectImage(name)).Id, second.config.digest);
    await dockerOk(["rmi", name]);
  });
});

describe("an unpacked image", () => {
  let listing: Map<string, string>;
  const container = uniqueName("layers");

  before(async () => {
    const script = `
      cd /data
      stat -c '%n|%a|%u:%g|%F|%h|%Y|%t:%T' * .[!.]*
      for file in kept changed becomes-file becomes-folder/inner opaque/new symlink absolute link-b; do
        echo "content $file|$(cat $file)"
      done
      echo "links|$([ link-a -ef link-b ] && echo same)"
      echo "symlink|$(readlink symlink) $(readlink absolute) $(readlink dangling)"
      echo "opaque|$(ls opaque)"
      echo "long|$(cat long-name-*/deeper-*)"
      echo "device numbers|$(stat -c %d / /data /data/kept /bin/busybox /tmp | sort -u | wc -l)"
      echo "root|$(stat -c '%a %u:%g' /)"
    `;
    const out = await dockerOk([
      "run",
      "--name",
      container,
      imageRef("layers"),
      "sh",
      "-c",
      script,
    ]);
    listing = new Map(
      out.split("\n").map((line): [string, string] => {
        const at = line.indexOf("|");
        return [line.slice(0, at), line.slice(at + 1)];
      }),
    );
  });
  after(() => docker(["rm", "-f", container]));

  test("whiteouts and opaque folders hide what is below", () => {
    for (const gone of [
      "removed",
      "removed-folder",
      ".wh.removed",
      ".wh.removed-folder",
    ]) {
      assert.equal(listing.get(gone), undefined, gone);
    }
    assert.equal(listing.get("opaque"), "new", [...listing].join("\n"));
    assert.equal(listing.get("content changed"), "second");
    assert.equal(listing.get("content kept"), "kept");
  });

  test("a file replaces a folder and a folder a file", () => {
    assert.equal(listing.get("content becomes-file"), "a file now");
    assert.equal(listing.get("content becomes-folder/inner"), "inner");
  });

  test("links, symbolic links, times and long names are kept", () => {
    assert.equal(listing.get("links"), "same");
    assert.equal(listing.get("content link-b"), "linked");
    assert.equal(listing.get("symlink"), "kept /data/kept /no/such/place");
    assert.equal(listing.get("content absolute"), "kept");
    assert.equal(listing.get("long"), "long");
    assert.equal(
      listing.get("old-time")?.split("|")[4],
      String(Date.UTC(2001, 1, 3, 4, 5, 6) / 1000),
    );
    assert.ok(listing.has("späce and ünïcode"));
  });

  test("owners, modes and special files are kept", () => {
    const fields = (name: string) => listing.get(name)?.split("|") ?? [];
    assert.deepEqual(fields("setuid").slice(0, 2), ["4755", "0:0"]);
    assert.deepEqual(fields("owned").slice(0, 2), ["640", "1000:29"]);
    assert.equal(fields("sticky")[0], "1777");
    assert.equal(fields("fifo")[2], "fifo");
    assert.equal(fields("null")[2], "character special file");
    assert.equal(fields("null")[5], "1:3");
    assert.equal(fields("link-a")[3], "2");
  });

  test("the root folder is root's, and all files have one device number", () => {
    assert.equal(listing.get("root"), "755 0:0");
    assert.equal(listing.get("device numbers"), "1");
  });
});

describe("Debian", { skip: !environment().debian }, () => {
  test("an image made by debootstrap runs its tools", async () => {
    const out = await dockerOk(
      [
        "run",
        "--rm",
        imageRef("debian"),
        "bash",
        "-c",
        "set -e; . /etc/os-release; echo $ID; dpkg --verify base-files && echo verified; getent passwd daemon | cut -d: -f1; su daemon -s /bin/sh -c id",
      ],
      { timeout: 120_000 },
    );
    const lines = out.split("\n");
    assert.equal(lines[0], "debian");
    assert.ok(lines.includes("verified"), out);
    assert.ok(lines.includes("daemon"), out);
    assert.ok(
      lines.some((line) => line.startsWith("uid=1(daemon) gid=1(daemon)")),
      out,
    );
  });
});

test("nothing is left of images that were removed", async () => {
  const name = imageRef("once");
  const unique = image(
    [await layer([{ name: "once", content: `${Date.now()}\n`.repeat(1000) }])],
    {},
  );
  await push(environment().registries.plain, "once", "latest", unique);
  const files = () =>
    readdirSync(path.join(Daemon.shared().dataRoot), {
      recursive: true,
      encoding: "utf8",
    })
      // Disks are made ahead of containers.
      .filter((file) => !/(^|\/)(containers|networks)\/|^blank\//.test(file))
      .sort();
  const earlier = files();
  await dockerOk(["pull", "-q", name]);
  assert.notDeepEqual(files(), earlier);
  await dockerOk(["rmi", name]);
  assert.deepEqual(files(), earlier);
});

test("docker without a daemon behind it says so", async () => {
  const child = promisify(execFile)("docker", ["ps"], {
    env: dockerEnv({ host: "unix:///nonexistent/hull.sock" }),
  });
  await assert.rejects(
    child,
    /Cannot connect to the Docker daemon|failed to connect/,
  );
});
