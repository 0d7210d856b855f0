import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { execFileSync } from "node:child_process";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { api, messageOf } from "./harness/api.js";
import { docker, dockerOk, inspect, uniqueName } from "./harness/docker.js";
import { busybox, environment } from "./harness/environment.js";

interface ImageInspect {
  Id: string;
  Config: {
    Cmd: string[] | null;
    Entrypoint: string[] | null;
    Env: string[];
    User: string;
    WorkingDir: string;
    Labels: Record<string, string> | null;
    ExposedPorts?: object;
    Healthcheck?: { Test: string[] };
    StopSignal?: string;
  };
}

describe("docker build with the classic builder", () => {
  const name = uniqueName("built");
  let folder = "";

  before(() => {
    folder = mkdtempSync(path.join(environment().directory, "build-"));
    mkdirSync(path.join(folder, "dir/sub"), { recursive: true });
    writeFileSync(path.join(folder, "one.txt"), "one\n");
    writeFileSync(path.join(folder, "two.txt"), "two\n");
    writeFileSync(path.join(folder, "dir/sub/deep"), "deep\n");
    execFileSync("tar", [
      "-C",
      folder,
      "-czf",
      path.join(folder, "packed.tgz"),
      "one.txt",
    ]);
  });
  after(async () => {
    await docker(["rmi", "-f", name, `${name}-onbuild`]);
    rmSync(folder, { recursive: true, force: true });
  });

  const build = (dockerfile: string, ...args: string[]) =>
    docker(["build", ...args, "-f", "-", folder], {
      stdin: dockerfile,
      env: { DOCKER_BUILDKIT: "0" },
      timeout: 120_000,
    });

  const DOCKERFILE = `
ARG BASE=nothing
FROM \${BASE} AS first
RUN echo made > /made && echo on stderr >&2
FROM \${BASE}
ARG WHO=nobody
ENV GREETING="hello $WHO" OTHER=x
LABEL from=dockerfile
WORKDIR /work
COPY *.txt ./
COPY dir /copied
COPY --from=first /made /work/
COPY --chown=user:29 --chmod=600 one.txt /owned
ADD packed.tgz /unpacked/
RUN echo "$WHO" > who && cat /copied/sub/deep
USER user
EXPOSE 80
STOPSIGNAL SIGINT
HEALTHCHECK CMD true
SHELL ["/bin/sh", "-e", "-c"]
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cat /work/*.txt /work/made /work/who /unpacked/one.txt; stat -c '%u:%g %a' /owned; pwd; echo $GREETING; id -un"]
`;

  test("instructions, arguments and labels; the second time from the cache", async () => {
    const args = [
      "-t",
      name,
      "--build-arg",
      `BASE=${busybox()}`,
      "--build-arg",
      "WHO=me",
      "--label",
      "by=test",
    ];
    const { code, stdout, stderr } = await build(DOCKERFILE, ...args);
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /^Step 1\/\d+ : ARG BASE=nothing$/m);
    assert.match(stdout, /^ ---> Running in [0-9a-f]{12}$/m);
    assert.match(stdout, /^deep$/m);
    assert.match(
      stdout,
      /^ ---> Removed intermediate container [0-9a-f]{12}$/m,
    );
    const id = /^Successfully built ([0-9a-f]{12})$/m.exec(stdout)?.[1] ?? "";
    assert.match(
      stdout,
      new RegExp(`^Successfully tagged ${name}:latest$`, "m"),
    );
    const { Id, Config } = await inspect<ImageInspect>(name);
    assert.ok(Id.startsWith(`sha256:${id}`), id);
    assert.equal(Config.User, "user");
    assert.equal(Config.WorkingDir, "/work");
    assert.deepEqual(Config.Labels, { from: "dockerfile", by: "test" });
    assert.deepEqual(Config.ExposedPorts, { "80/tcp": {} });
    assert.equal(Config.StopSignal, "SIGINT");
    assert.deepEqual(Config.Healthcheck?.Test, ["CMD-SHELL", "true"]);
    assert.equal(
      await dockerOk(["run", "--rm", name]),
      "one\ntwo\nmade\nme\none\n1000:29 600\n/work\nhello me\nuser",
    );
    const again = await build(DOCKERFILE, ...args);
    assert.equal(again.code, 0, again.stderr);
    assert.doesNotMatch(again.stdout, /Running in/);
    assert.match(again.stdout, /^ ---> Using cache$/m);
    assert.match(again.stdout, new RegExp(`Successfully built ${id}`));
    assert.equal(
      await dockerOk(["ps", "-aq", "--filter", `ancestor=${name}`]),
      "",
    );
  });

  test("a command that fails, and its exit code", async () => {
    const { code, stderr } = await build(
      `FROM ${busybox()}\nRUN exit 7`,
      "--force-rm",
    );
    assert.equal(code, 7);
    assert.match(
      stderr,
      /The command '\/bin\/sh -c exit 7' returned a non-zero code: 7/,
    );
  });

  test("triggers, a target, a base of nothing", async () => {
    const base = await build(
      `FROM ${busybox()} AS a\nONBUILD ENV TRIGGERED=yes\nFROM scratch\nCOPY one.txt /\nFROM a`,
      "-t",
      `${name}-onbuild`,
      "--target",
      "a",
    );
    assert.equal(base.code, 0, base.stderr);
    const { code, stdout } = await build(
      `FROM ${name}-onbuild\nCMD ["env"]`,
      "-q",
    );
    assert.equal(code, 0);
    assert.match(stdout, /^sha256:[0-9a-f]{64}\n$/);
    const { Config } = await inspect<ImageInspect>(stdout.trim());
    assert.ok(Config.Env.includes("TRIGGERED=yes"), "the trigger");
    const empty = await build("FROM scratch\nCOPY one.txt /sub/", "-q");
    assert.equal(empty.code, 0, empty.stderr);
  });

  test("what is wrong is said, and nothing is left", async () => {
    for (const [text, words] of [
      [
        `FROM ${busybox()}\nCOPY missing /x`,
        /COPY failed: file not found in build context.*stat missing/,
      ],
      [
        `FROM ${busybox()}\nRUN --mount=type=cache,target=/x true`,
        /the --mount option requires BuildKit/,
      ],
      [
        `FROM ${busybox()}\nRUN <<EOF\ntrue\nEOF`,
        /here-document feature requires BuildKit/,
      ],
      [
        `FROM ${busybox()}\nCOPY one.txt two.txt /x`,
        /must be a directory and end with a \//,
      ],
      ["RUN true", /no build stage in current context/],
      ["BOGUS", /unknown instruction: BOGUS/],
    ] as const) {
      const { code, stderr } = await build(text);
      assert.equal(code, 1, text);
      assert.match(stderr, words);
    }
    assert.equal(
      (await api("POST", "/build?dockerfile=none", Buffer.alloc(1024))).status,
      400,
    );
    assert.equal(
      (await api("POST", "/build", Buffer.from("no tar"))).status,
      400,
    );
    assert.equal(
      (await api("POST", "/build?buildargs=x", Buffer.alloc(1024))).status,
      400,
    );
    const kit = await api("POST", "/build?version=2", Buffer.alloc(1024));
    assert.match(messageOf(kit), /no BuildKit/);
  });
});
