/** What a build, or an import, is made of: archives, URLs, contexts from elsewhere; its cache and its limits. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { api, messageOf } from "./harness/api.js";
import { docker, dockerOk, uniqueName } from "./harness/docker.js";
import { busybox, environment } from "./harness/environment.js";

const MiB = 1024 * 1024;

describe("what builds and imports are made of", () => {
  const name = uniqueName("sources");
  let folder = "";
  let server: Server;
  let base = "";
  const archive = (...options: string[]) =>
    execFileSync("tar", ["-C", folder, ...options, "one.txt"]);

  before(async () => {
    folder = mkdtempSync(path.join(environment().directory, "sources-"));
    writeFileSync(path.join(folder, "one.txt"), "one\n");
    writeFileSync(path.join(folder, "packed.tar.xz"), archive("-cJ"));
    const dockerfile = `FROM ${busybox()}\nCOPY one.txt /from-archive\n`;
    writeFileSync(path.join(folder, "Dockerfile"), dockerfile);
    const context = execFileSync("tar", [
      ...["-C", folder, "-cz", "one.txt", "Dockerfile"],
    ]);
    const files: Record<string, [type: string, body: Buffer]> = {
      "/root.tar": ["application/x-tar", archive("-c")],
      "/context.tar.gz": ["application/gzip", context],
      "/Dockerfile": [
        "text/plain; charset=utf-8",
        Buffer.from(`FROM ${busybox()}\nLABEL from=text\n`),
      ],
      "/file.bin": ["application/octet-stream", Buffer.from("fetched\n")],
    };
    server = createServer((request, response) => {
      if (request.url === "/moved.bin") {
        response.writeHead(302, { location: "/file.bin" }).end();
        return;
      }
      const found = files[request.url ?? ""];
      if (!found) response.writeHead(404).end();
      else response.writeHead(200, { "content-type": found[0] }).end(found[1]);
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  after(async () => {
    server.close();
    rmSync(folder, { recursive: true, force: true });
    await docker(["rmi", "-f", name, `${name}-import`, `${name}-remote`]);
    await docker(["builder", "prune", "-af"]);
  });

  const build = (dockerfile: string, ...args: string[]) =>
    docker(["build", ...args, "-f", "-", folder], {
      stdin: dockerfile,
      env: { DOCKER_BUILDKIT: "0" },
      timeout: 120_000,
    });
  const cat = (image: string, ...files: string[]) =>
    dockerOk(["run", "--rm", image, "cat", ...files]);

  test("import fetches an archive; what is none, or not there, is said", async () => {
    const out = await dockerOk([
      "import",
      `${base}/root.tar`,
      `${name}-import`,
    ]);
    assert.match(out, /Downloading from http:.*\nsha256:[0-9a-f]{64}$/);
    const comment = await dockerOk([
      ...["inspect", "-f", "{{.Comment}}", `${name}-import`],
    ]);
    assert.equal(comment, `Imported from ${base}/root.tar`);
    const missing = await docker(["import", `${base}/none`, "x"]);
    assert.equal(missing.code, 1);
    assert.match(missing.stderr, /Got HTTP status code >= 400: 404 Not Found/);
    const scheme = await api("POST", "/images/create?fromSrc=ftp://x/y&repo=x");
    assert.equal(scheme.status, 400);
    assert.match(messageOf(scheme), /^fromSrc: "ftp:\/\/x\/y" is no URL/);
  });

  test("ADD of URLs and of an archive in xz", async () => {
    const { code, stderr } = await build(
      [
        `FROM ${busybox()}`,
        `ADD ${base}/moved.bin /urls/`,
        "ADD packed.tar.xz /unpacked/",
        `ADD ${base}/root.tar /urls/kept.tar`,
      ].join("\n"),
      ...["-t", name],
    );
    assert.equal(code, 0, stderr);
    assert.equal(
      await cat(name, "/urls/moved.bin", "/unpacked/one.txt"),
      "fetched\none",
    );
    const modes = ["stat", "-c", "%a %s", "/urls/moved.bin", "/urls/kept.tar"];
    // An archive from a URL stays one.
    const { length } = archive("-c");
    assert.equal(
      await dockerOk(["run", "--rm", name, ...modes]),
      `600 8\n600 ${length}`,
    );
    const missing = await build(`FROM ${busybox()}\nADD ${base}/none /x`);
    assert.equal(missing.code, 1);
    assert.match(missing.stderr, /ADD failed: .*with status 404 Not Found/);
  });

  test("a context on stdin, and one the daemon fetches", async () => {
    const stdin = execFileSync("tar", [
      ...["-C", folder, "-cJ", "one.txt", "Dockerfile"],
    ]);
    const piped = await docker(["build", "-q", "-"], {
      stdin,
      env: { DOCKER_BUILDKIT: "0" },
      timeout: 60_000,
    });
    assert.equal(piped.code, 0, piped.stderr);
    const query = (remote: string) =>
      `/build?t=${name}-remote&remote=${encodeURIComponent(remote)}`;
    const fetched = await api("POST", query(`${base}/context.tar.gz`));
    assert.equal(fetched.status, 200);
    assert.match(fetched.text, /Successfully tagged/);
    assert.equal(await cat(`${name}-remote`, "/from-archive"), "one");
    const text = await api("POST", query(`${base}/Dockerfile`));
    assert.match(text.text, /Successfully tagged/);
    const label = ["-f", "{{.Config.Labels.from}}", `${name}-remote`];
    assert.equal(await dockerOk(["inspect", ...label]), "text");
    const missing = await api("POST", query(`${base}/none`));
    assert.equal(missing.status, 400);
    assert.match(messageOf(missing), /error downloading remote context .* 404/);
    const git = await api("POST", query("https://127.0.0.1/x.git"));
    assert.equal(git.status, 501);
  });

  test("limits of a build are those of its commands; --no-cache does all of it again", async () => {
    const text = `FROM ${busybox()}\nRUN cat /sys/fs/cgroup/memory.max && ulimit -n && cat /proc/uptime`;
    const limits = ["-m", "100m", "--ulimit", "nofile=64:64"];
    const first = await build(text, ...limits);
    assert.equal(first.code, 0, first.stderr);
    assert.match(first.stdout, new RegExp(`\n${100 * MiB}\n64\n`));
    const second = await build(text, ...limits);
    assert.match(second.stdout, /Using cache/);
    const third = await build(text, ...limits, "--no-cache");
    assert.doesNotMatch(third.stdout, /Using cache/);
    const idOf = ({ stdout }: { stdout: string }) =>
      /Successfully built (\w+)/.exec(stdout)?.[1];
    assert.equal(idOf(second), idOf(first));
    assert.notEqual(idOf(third), idOf(first));
    await docker(["rmi", idOf(first) ?? "", idOf(third) ?? ""]);
    const pinned = await build(text, "--cpuset-cpus", "0");
    assert.equal(pinned.code, 1);
    assert.match(pinned.stderr, /CpusetCpus/);
  });

  test("builder prune takes what failed builds and stages left, and with -a all steps", async () => {
    await dockerOk(["builder", "prune", "-af"]);
    const layer = (file: string) => `RUN head -c ${MiB} /dev/urandom > ${file}`;
    const dockerfile = [
      `FROM ${busybox()} AS other`,
      layer("/stage"),
      "LABEL left=over",
      `FROM ${busybox()}`,
      layer("/kept"),
      "COPY --from=other /etc/passwd /copied",
      "CMD true",
    ].join("\n");
    const built = await build(dockerfile, "-t", name);
    assert.equal(built.code, 0, built.stderr);
    const failed = await build(
      `FROM ${busybox()}\n${layer("/lost")}\nRUN false`,
      "--force-rm",
    );
    assert.equal(failed.code, 1);
    const untagged = await build(`FROM ${busybox()}\nLABEL own=image`, "-q");

    interface Usage {
      BuildCache: { ID: string; Shared: boolean; Size: number }[];
    }
    const { BuildCache: cache } = JSON.parse(
      (await api("GET", "/system/df?type=build-cache")).text,
    ) as Usage;
    const sizes = cache
      .filter(({ Shared }) => !Shared)
      .map(({ Size }) => Size)
      .sort((a, b) => a - b);
    assert.deepEqual(sizes, [0, MiB, MiB]);
    const prune = async (query: string) =>
      JSON.parse((await api("POST", `/build/prune${query}`)).text) as {
        CachesDeleted: string[] | null;
        SpaceReclaimed: number;
      };
    const filter = encodeURIComponent('{"until":["1h"]}');
    assert.deepEqual(await prune(`?filters=${filter}`), {
      CachesDeleted: null,
      SpaceReclaimed: 0,
    });
    // What may stay does, the newest first.
    const some = await prune(`?keep-storage=${MiB}`);
    assert.equal(some.SpaceReclaimed, MiB);
    const out = await dockerOk(["builder", "prune", "-f"]);
    assert.match(out, /Total(?: reclaimed space)?:\s*1\.049MB/);
    // What was built, named or not, is no cache.
    assert.match((await build(dockerfile)).stdout, /Using cache/);
    await dockerOk(["inspect", untagged.stdout.trim()]);

    const all = await prune("?all=true");
    assert.ok(all.CachesDeleted?.length, "steps were forgotten");
    assert.equal(all.SpaceReclaimed, MiB, "the stage that was built again");
    assert.equal(await cat(name, "/copied").then(Boolean), true);
    const again = await build(dockerfile);
    assert.doesNotMatch(again.stdout, /Using cache/);
    await docker(["rmi", untagged.stdout.trim()]);
    const unknown = await api(
      "POST",
      `/build/prune?filters=${encodeURIComponent('{"bogus":["1"]}')}`,
    );
    assert.equal(unknown.status, 400);
  });
});
