import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { pack, type Header } from "tar-stream";
import { api, messageOf } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import {
  docker,
  dockerOk,
  inspect,
  removeContainers,
  uniqueName,
} from "./harness/docker.js";
import { busybox, environment } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

/** A tar archive of entries as anybody may write it, tar-stream's checks left out. */
async function tarOf(
  entries: (Partial<Header> & { name: string; content?: string })[],
): Promise<Buffer> {
  const archive = pack();
  for (const { content = "", ...header } of entries)
    archive.entry({ mode: 0o644, ...header }, content);
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive as AsyncIterable<Buffer>)
    chunks.push(chunk);
  return Buffer.concat(chunks);
}

const sh = (name: string, script: string) =>
  dockerOk(["exec", name, "sh", "-c", script]);

describe("docker cp", () => {
  const running = uniqueName("files-running");
  const stopped = uniqueName("files-stopped");
  let folder = "";
  const local = (...parts: string[]) => path.join(folder, ...parts);

  before(async () => {
    folder = mkdtempSync(path.join(environment().directory, "files-"));
    await dockerOk(["create", "--name", stopped, busybox(), "true"]);
    await dockerOk([
      "run",
      "-d",
      "--name",
      running,
      "--tmpfs",
      "/scratch",
      busybox(),
      "sleep",
      "100000",
    ]);
    mkdirSync(local("tree/sub/empty"), { recursive: true });
    writeFileSync(local("tree/file"), "content\n");
    writeFileSync(local("tree/späce here"), "name\n");
    writeFileSync(local("tree/sub", "long-".repeat(40)), "long\n");
    symlinkSync("file", local("tree/link"));
    symlinkSync("/etc/passwd", local("tree/absolute"));
    linkSync(local("tree/file"), local("tree/hard"));
    chmodSync(local("tree/file"), 0o640);
    utimesSync(local("tree/file"), 1e9, 1e9);
  });
  after(async () => {
    rmSync(folder, { recursive: true, force: true });
    await removeContainers(running, stopped);
  });

  for (const [state, name] of [
    ["a running", running],
    ["a stopped", stopped],
  ] as const) {
    test(`a tree goes into ${state} container and comes back as it was`, async () => {
      await dockerOk(["cp", local("tree"), `${name}:/in`]);
      await dockerOk(["cp", `${name}:/in`, local(`back-${name}`)]);
      const back = (...parts: string[]) => local(`back-${name}`, ...parts);
      assert.deepEqual(readdirSync(back()), readdirSync(local("tree")));
      assert.equal(readFileSync(back("file"), "utf8"), "content\n");
      assert.equal(readFileSync(back("späce here"), "utf8"), "name\n");
      assert.equal(
        readFileSync(back("sub", "long-".repeat(40)), "utf8"),
        "long\n",
      );
      assert.deepEqual(readdirSync(back("sub/empty")), []);
      assert.equal(readlinkSync(back("link")), "file");
      assert.equal(readlinkSync(back("absolute")), "/etc/passwd");
      const status = statSync(back("file"));
      assert.equal(status.mode & 0o7777, 0o640);
      assert.equal(status.mtimeMs, 1e12);
      assert.equal(statSync(back("hard")).ino, status.ino);
    });

    test(`what docker says of missing and odd paths in ${state} container`, async () => {
      const missing = await docker(["cp", `${name}:/no/such`, local("x")]);
      assert.equal(missing.code, 1);
      assert.match(
        missing.stderr,
        /Could not find the file \/no\/such in container/,
      );
      const nowhere = await docker([
        "cp",
        local("tree/file"),
        `${name}:/no/such/`,
      ]);
      assert.equal(nowhere.code, 1);
      const intoFile = await docker([
        "cp",
        local("tree"),
        `${name}:/etc/passwd`,
      ]);
      assert.equal(intoFile.code, 1);
      assert.match(intoFile.stderr, /cannot copy directory/);
      assert.match(
        messageOf(
          await api(
            "PUT",
            `/containers/${name}/archive?path=/etc/passwd`,
            await tarOf([]),
          ),
        ),
        /extraction point is not a directory/,
      );
    });
  }

  test("single files and folders' contents, by the rules of cp", async () => {
    await dockerOk(["cp", local("tree/file"), `${running}:/tmp/renamed`]);
    await dockerOk(["cp", `${local("tree")}/.`, `${running}:/tmp`]);
    assert.equal(
      await sh(running, "cat /tmp/renamed /tmp/hard"),
      "content\ncontent",
    );
    await dockerOk(["cp", `${running}:/etc/passwd`, local("passwd")]);
    assert.match(readFileSync(local("passwd"), "utf8"), /^root:/);
    await dockerOk(["cp", `${running}:/home/.`, local("home")]);
    assert.deepEqual(readdirSync(local("home")), ["user"]);
  });

  test("streams: a tar archive from stdin and to stdout", async () => {
    const archive = await tarOf([{ name: "from-stdin", content: "piped\n" }]);
    await dockerOk(["cp", "-", `${running}:/tmp`], { stdin: archive });
    await dockerOk(["cp", "-", `${running}:/tmp`], {
      stdin: gzipSync(await tarOf([{ name: "zipped", content: "z\n" }])),
    });
    assert.equal(
      await sh(running, "cat /tmp/from-stdin /tmp/zipped"),
      "piped\nz",
    );
    const out = await docker(["cp", `${running}:/tmp/from-stdin`, "-"]);
    const names = execFileSync("tar", ["-t"], { input: out.bytes });
    assert.equal(names.toString(), "from-stdin\n");
  });

  test("-L follows a link, without it the link is copied", async () => {
    await sh(running, "ln -s passwd /etc/linked");
    await dockerOk(["cp", `${running}:/etc/linked`, local("as-link")]);
    assert.equal(readlinkSync(local("as-link")), "passwd");
    await dockerOk(["cp", "-L", `${running}:/etc/linked`, local("as-file")]);
    assert.match(readFileSync(local("as-file"), "utf8"), /^root:/);
  });

  test("-a gives the files to the container's user", async () => {
    const name = uniqueName("files-user");
    await dockerOk([
      "create",
      "--name",
      name,
      "-u",
      "user",
      busybox(),
      "stat",
      "-c",
      "%u:%g",
      "/tmp/file",
    ]);
    try {
      await dockerOk(["cp", "-a", local("tree/file"), `${name}:/tmp/file`]);
      assert.equal(await dockerOk(["start", "-a", name]), "1000:1000");
    } finally {
      await removeContainers(name);
    }
  });

  test("owners, modes, attributes, devices and times survive a round trip", async () => {
    const archive = await tarOf([
      { name: "odd", type: "directory", mode: 0o1777, uid: 7, gid: 8 },
      { name: "odd/suid", mode: 0o4755, uid: 1000, gid: 29, content: "s" },
      { name: "odd/fifo", type: "fifo", mode: 0o600 },
      {
        name: "odd/null",
        type: "character-device",
        devmajor: 1,
        devminor: 3,
        mode: 0o666,
      },
      {
        name: "odd/attributes",
        content: "x",
        pax: {
          "SCHILY.xattr.user.note": "a note",
          mtime: "1700000000.123456789",
        },
      },
      { name: "odd/big-owner", pax: { uid: "3000000000", gid: "3000000001" } },
      { name: "odd/link", type: "symlink", linkname: "/no/such/place" },
    ]);
    await dockerOk(["cp", "-", `${stopped}:/tmp`], { stdin: archive });
    const out = await docker(["cp", `${stopped}:/tmp/odd`, "-"]);
    const listing = execFileSync(
      "tar",
      ["--numeric-owner", "--xattrs", "--full-time", "-tvv"],
      { input: out.bytes, encoding: "utf8" },
    );
    assert.match(listing, /^drwxrwxrwt +7\/8 .* odd\/$/m);
    assert.match(listing, /^-rwsr-xr-x +1000\/29 .* odd\/suid$/m);
    assert.match(listing, /^prw------- .* odd\/fifo$/m);
    assert.match(listing, /^crw-rw-rw- +0\/0 +1,3 .* odd\/null$/m);
    assert.match(listing, /3000000000\/3000000001 .* odd\/big-owner$/m);
    assert.match(listing, /odd\/link -> \/no\/such\/place$/m);
    assert.match(listing, /2023-11-14 22:13:20\.123456789 odd\/attributes/);
    assert.match(listing, /x: +6 user\.note/);
  });

  test("a planted link leads nowhere but into the container", async () => {
    const outside = path.join("/tmp", uniqueName("hull-outside"));
    await sh(
      running,
      `mkdir -p /trap && ln -s / /trap/root && ln -s ../../../../../.. /trap/up && ln -s ${outside} /trap/out && ln -s /trap/loop /trap/loop`,
    );
    await dockerOk(["cp", local("tree/file"), `${running}:/trap/up/landed`]);
    assert.equal(await sh(running, "cat /landed"), "content");
    const archive = await tarOf([
      { name: "a", type: "symlink", linkname: "/etc" },
      { name: "a/planted", content: "planted\n" },
      { name: "up", type: "symlink", linkname: "../../../../.." },
      { name: "up/run/hull-planted", content: "planted\n" },
    ]);
    await dockerOk(["cp", "-", `${running}:/trap`], { stdin: archive });
    assert.equal(await sh(running, "cat /etc/planted"), "planted");
    // The agent's own /run, where the container's root is mounted, has nothing of it.
    assert.equal(await sh(running, "cat /run/hull-planted"), "planted");
    assert.equal(existsSync("/run/hull-planted"), false);
    assert.equal(existsSync(outside), false);
    for (const [entry, words] of [
      [{ name: "../out", content: "x" }, /is outside of/],
      [
        { name: "hard", type: "link", linkname: "../../etc/passwd" },
        /invalid hardlink/,
      ],
    ] as const) {
      const answer = await api(
        "PUT",
        `/containers/${running}/archive?path=/trap`,
        await tarOf([entry]),
      );
      assert.equal(answer.status, 400);
      assert.match(messageOf(answer), words);
    }
    const loop = await api(
      "HEAD",
      `/containers/${running}/archive?path=/trap/loop/x`,
    );
    assert.equal(loop.status, 500);
  });

  test("files go where their path leads, also when the archive changes that", async () => {
    const put = async (entries: Parameters<typeof tarOf>[0]) => {
      const url = `/containers/${running}/archive?path=/places`;
      const answer = await api("PUT", url, await tarOf(entries));
      assert.equal(answer.status, 200, messageOf(answer));
    };
    await sh(running, "mkdir /places");
    await put([
      { name: "moved/1", content: "1" },
      { name: "moved/2", content: "2" },
      { name: "moved/3", content: "3" },
      { name: "moved", type: "symlink", linkname: "other" },
      { name: "other", type: "directory", mode: 0o755 },
      { name: "moved/4", content: "4" },
      { name: "moved/5", content: "5" },
      { name: "moved/6", content: "6" },
      { name: "./moved/../moved//7", content: "7" },
    ]);
    assert.equal(await sh(running, "cd /places; cat other/*"), "4567");
    await put([
      { name: "moved/8", content: "8" },
      { name: "moved/9", content: "9" },
      { name: "other", content: "a file now," },
      { name: "deep/er/1", content: "1" },
      { name: "deep/er/2", content: "2" },
      { name: "deep/er/3", content: "3" },
      { name: "deep/er/2", content: "two again" },
    ]);
    const script = "cd /places; cat other deep/er/*; readlink moved";
    assert.equal(await sh(running, script), "a file now,1two again3other");
  });

  test("long files, into the root, a bind and a tmpfs, and out again", async () => {
    const name = uniqueName("files-long");
    const bound = mkdtempSync(path.join(folder, "bound-"));
    // No multiple of anything.
    writeFileSync(local("long"), randomBytes(3_000_001));
    await dockerOk([
      ...["run", "-d", "--name", name, "-v", `${bound}:/bound`],
      ...["--tmpfs", "/scratch", busybox(), "sleep", "1000"],
    ]);
    try {
      const content = readFileSync(local("long"));
      const sum = createHash("md5").update(content).digest("hex");
      for (const place of ["/tmp", "/bound", "/scratch"]) {
        await dockerOk(["cp", local("long"), `${name}:${place}/long`]);
        assert.match(await sh(name, `md5sum ${place}/long`), new RegExp(sum));
        await dockerOk(["cp", `${name}:${place}/long`, local("long-back")]);
        assert.ok(readFileSync(local("long-back")).equals(content), place);
        rmSync(local("long-back"));
      }
      assert.ok(readFileSync(path.join(bound, "long")).equals(content));
      const cut = (
        await tarOf([{ name: "cut", content: "x".repeat(1_000_000) }])
      ).subarray(0, 700_000);
      const answer = await api(
        "PUT",
        `/containers/${name}/archive?path=/tmp`,
        cut,
      );
      assert.equal(answer.status, 400);
      assert.match(messageOf(answer), /unexpected EOF/);
    } finally {
      await removeContainers(name);
    }
  });

  test("bad archives are refused, and the daemon goes on", async () => {
    const put = (body: Buffer, at = "/tmp") =>
      api("PUT", `/containers/${running}/archive?path=${at}`, body);
    const good = await tarOf([{ name: "cut", content: "x".repeat(5000) }]);
    assert.equal((await put(good.subarray(0, 2000))).status, 400);
    const broken = Buffer.from(good);
    broken[0] = 1;
    assert.match(messageOf(await put(broken)), /invalid tar header/);
    assert.equal((await put(gzipSync(good).subarray(0, 30))).status, 400);
    assert.equal(
      (await api("PUT", `/containers/${running}/archive`, good)).status,
      400,
    );
    assert.equal(
      (await api("GET", `/containers/nobody/archive?path=/`)).status,
      404,
    );
    assert.equal(
      (
        await api(
          "PUT",
          `/containers/${running}/archive?path=/tmp&noOverwriteDirNonDir=1`,
          await tarOf([{ name: "../tmp" }, { name: "sub", content: "" }]),
        )
      ).status,
      400,
    );
  });

  test("a read-only root takes nothing, its mounts do", async () => {
    const name = uniqueName("files-readonly");
    await dockerOk([
      "run",
      "-d",
      "--name",
      name,
      "--read-only",
      "--tmpfs",
      "/scratch",
      busybox(),
      "sleep",
      "1000",
    ]);
    try {
      const refused = await docker([
        "cp",
        local("tree/file"),
        `${name}:/tmp/x`,
      ]);
      assert.match(refused.stderr, /container rootfs is marked read-only/);
      await dockerOk(["cp", local("tree/file"), `${name}:/scratch/x`]);
      assert.equal(await sh(name, "cat /scratch/x"), "content");
    } finally {
      await removeContainers(name);
    }
  });

  test("a paused container's files can be had, and it stays paused", async () => {
    const name = uniqueName("files-paused");
    await dockerOk([
      "run",
      "-d",
      "--name",
      name,
      busybox(),
      "sh",
      "-c",
      "while sleep 0.05; do date >> /tmp/log; done",
    ]);
    try {
      await eventually(async () =>
        assert.notEqual(await sh(name, "cat /tmp/log"), ""),
      );
      await dockerOk(["pause", name]);
      const read = async () =>
        (await docker(["cp", `${name}:/tmp/log`, "-"])).bytes;
      const first = await read();
      assert.equal(first.equals(await read()), true);
      assert.equal((await inspect(name)).State.Status, "paused");
      await dockerOk(["unpause", name]);
      await eventually(async () =>
        assert.equal(first.equals(await read()), false),
      );
    } finally {
      await removeContainers(name);
    }
  });

  test("the machine that stands in for a stopped container goes away; start waits for it", async () => {
    await dockerOk(["cp", local("tree/file"), `${stopped}:/tmp/late`]);
    await dockerOk(["start", stopped]);
    await dockerOk(["wait", stopped]);
    await dockerOk(["cp", `${stopped}:/tmp/late`, local("late")]);
    assert.equal(readFileSync(local("late"), "utf8"), "content\n");
    const { Id } = await inspect(stopped);
    await eventually(() => {
      const machines = Daemon.shared().machines();
      assert.equal(JSON.stringify(machines).includes(Id), false);
    });
    assert.equal(lstatSync(local("late")).size, 8);
  });

  test("docker diff and docker export tell what the container changed", async () => {
    const name = uniqueName("files-diff");
    await dockerOk([
      "run",
      "--name",
      name,
      "-w",
      "/tmp",
      busybox(),
      "sh",
      "-c",
      "echo x > /tmp/new; mkdir -p /new/sub; echo y >> /etc/group; rm /etc/not-executable; rm -r /home/user; mkdir /home/user",
    ]);
    try {
      const diff = (await dockerOk(["diff", name])).split("\n").sort();
      assert.deepEqual(diff, [
        "A /new",
        "A /new/sub",
        "A /tmp/new",
        "C /etc",
        "C /etc/group",
        "C /home",
        "C /home/user",
        "C /tmp",
        "D /etc/not-executable",
      ]);
      const archive = (await docker(["export", name])).bytes;
      const names = execFileSync("tar", ["-t"], {
        input: archive,
        encoding: "utf8",
      }).split("\n");
      assert.equal(names.includes("bin/busybox"), true);
      assert.equal(names.includes("new/sub/"), true);
      assert.equal(names.includes("etc/not-executable"), false);
      assert.deepEqual(
        names.filter((entry) => /^(proc|sys|dev)\/./.test(entry)),
        [],
      );
    } finally {
      await removeContainers(name);
    }
    const untouched = uniqueName("files-untouched");
    await dockerOk(["create", "--name", untouched, busybox(), "true"]);
    assert.equal(await dockerOk(["diff", untouched]), "");
    await removeContainers(untouched);
  });

  test("many at once share a machine; what a client leaves half read is given up", async () => {
    await dockerOk(["cp", local("tree"), `${stopped}:/many`]);
    const results = await Promise.all(
      Array.from({ length: 8 }, () => docker(["cp", `${stopped}:/many`, "-"])),
    );
    for (const { code } of results) assert.equal(code, 0);
    await sh(running, "head -c 20000000 /dev/zero > /tmp/big");
    const { stdout } = await docker([
      "version",
      "--format",
      "{{.Server.Version}}",
    ]);
    assert.notEqual(stdout, "");
    execFileSync("sh", [
      "-c",
      `curl -s --max-time 20 --unix-socket ${Daemon.shared().socket} 'http://d/containers/${running}/archive?path=/tmp/big' | head -c 1000 > /dev/null`,
    ]);
    assert.equal(await sh(running, "echo on"), "on");
  });
});
