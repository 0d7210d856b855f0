import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { api, messageOf } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import {
  docker,
  dockerOk,
  inspect,
  removeContainers,
  uniqueName,
} from "./harness/docker.js";
import { busybox, environment, imageRef } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

const shell = (script: string) => [busybox(), "sh", "-c", script];

describe("volumes", () => {
  test("are made, listed, inspected and removed", async () => {
    const name = uniqueName("volume");
    const made = await dockerOk([
      ...["volume", "create", "--label", "kind=test", name],
    ]);
    assert.equal(made, name);
    const list = (...filters: string[]) =>
      dockerOk([
        ...["volume", "ls", "-q"],
        ...filters.flatMap((filter) => ["--filter", filter]),
      ]);
    for (const filters of [
      [`name=${name}`],
      ["label=kind=test", `name=${name}`],
      ["dangling=true", `name=${name}`],
      ["driver=local", `name=${name}`],
    ]) {
      assert.equal(await list(...filters), name);
    }
    assert.equal(await list("dangling=false", `name=${name}`), "");
    assert.equal(await list("label=kind=no", `name=${name}`), "");
    const { json } = await api("GET", `/volumes/${name}`);
    const { Mountpoint, CreatedAt, ...rest } = json as Record<string, unknown>;
    assert.deepEqual(rest, {
      Driver: "local",
      Labels: { kind: "test" },
      Name: name,
      Options: {},
      Scope: "local",
    });
    assert.ok(statSync(String(Mountpoint)).isDirectory());
    assert.ok(Math.abs(Date.parse(String(CreatedAt)) - Date.now()) < 60_000);
    assert.equal(await dockerOk(["volume", "rm", name]), name);
    assert.equal(existsSync(String(Mountpoint)), false);
  });

  test("names and drivers that cannot be are refused in Docker's words", async () => {
    for (const [body, status, message] of [
      [
        { Name: "../evil" },
        400,
        'create ../evil: "../evil" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path',
      ],
      [
        { Name: "x" },
        400,
        "create x: volume name is too short, names should be at least two alphanumeric characters",
      ],
      [
        { Name: "ok", Driver: "nodriver" },
        404,
        'create ok: error looking up volume plugin nodriver: plugin "nodriver" not found',
      ],
      [
        { Name: "ok", DriverOpts: { colour: "red" } },
        400,
        'create ok: invalid option: "colour"',
      ],
      [
        { Name: "ok", DriverOpts: { type: "none" } },
        400,
        'create ok: missing required option: "device"',
      ],
      [
        { Name: "ok", DriverOpts: { type: "tmpfs", device: "tmpfs" } },
        501,
        'create ok: hull does not support volumes of type "tmpfs": only type=none with o=bind',
      ],
      [
        {
          Name: "ok",
          DriverOpts: { type: "nfs", o: "addr=192.0.2.1", device: ":/data" },
        },
        501,
        'create ok: hull does not support volumes of type "nfs": only type=none with o=bind',
      ],
    ] as const) {
      const answer = await api("POST", "/volumes/create", body);
      assert.deepEqual([answer.status, messageOf(answer)], [status, message]);
    }
    assert.equal((await api("GET", "/volumes/ok")).status, 404);
    const unknown = await docker(["volume", "rm", "no-such-volume"]);
    assert.equal(unknown.code, 1);
    assert.match(unknown.stderr, /get no-such-volume: no such volume/);
    await dockerOk(["volume", "rm", "-f", "no-such-volume"]);
  });

  test("keep their content from one container to the next, and while they are in use", async () => {
    const volume = uniqueName("kept");
    const name = uniqueName("user");
    const first = await dockerOk([
      ...["run", "--rm", "-v", `${volume}:/data`],
      ...shell("echo kept > /data/file; chown 1000:10 /data/file; ls /data"),
    ]);
    assert.equal(first, "file");
    await dockerOk([
      ...["create", "--name", name, "-v", `${volume}:/data:ro`],
      ...shell("cat /data/file; stat -c %u:%g /data/file; touch /data/x"),
    ]);
    const second = await docker(["start", "-a", name]);
    assert.equal(second.stdout, "kept\n1000:10\n");
    assert.match(second.stderr, /Read-only file system/);
    const { Id, Mounts } = await inspect<{ Id: string; Mounts: object[] }>(
      name,
    );
    const { json } = await api("GET", `/volumes/${volume}`);
    assert.deepEqual(Mounts, [
      {
        Type: "volume",
        Name: volume,
        Source: (json as { Mountpoint: string }).Mountpoint,
        Destination: "/data",
        Driver: "local",
        Mode: "ro",
        RW: false,
        Propagation: "",
      },
    ]);
    const used = await api("DELETE", `/volumes/${volume}`);
    assert.deepEqual(
      [used.status, messageOf(used)],
      [409, `remove ${volume}: volume is in use - [${Id}]`],
    );
    await removeContainers(name);
    await dockerOk(["volume", "rm", volume]);
  });
});

describe("bind mounts", () => {
  const folder = path.join(environment().directory, uniqueName("bind"));
  before(() => {
    mkdirSync(path.join(folder, "sub"), { recursive: true });
    writeFileSync(path.join(folder, "file"), "of the host\n");
    writeFileSync(path.join(folder, "sub/inner"), "inner\n");
    chmodSync(path.join(folder, "sub"), 0o750);
  });

  test("folders and single files, writable and read-only", async () => {
    const stdout = await dockerOk([
      ...["run", "--rm", "-v", `${folder}:/host`],
      ...["-v", `${folder}/sub:/ro:ro`, "-v", `${folder}/file:/etc/one`],
      ...shell(
        "cat /host/file /ro/inner /etc/one; echo guest > /host/made; echo more >> /etc/one; touch /ro/x || echo refused",
      ),
    ]);
    assert.equal(stdout, "of the host\ninner\nof the host\nrefused");
    const text = (name: string) =>
      readFileSync(path.join(folder, name), "utf8");
    assert.equal(text("made"), "guest\n");
    assert.equal(text("file"), "of the host\nmore\n");
  });

  test("a source that is not there is made for -v, and refused for --mount", async () => {
    const missing = path.join(folder, "not/there");
    const refused = await docker([
      ...["run", "--rm", "--mount", `type=bind,src=${missing},dst=/x`],
      ...shell("true"),
    ]);
    assert.equal(refused.code, 125);
    assert.match(
      refused.stderr,
      /invalid mount config for type "bind": bind source path does not exist: /,
    );
    assert.equal(existsSync(missing), false);
    await dockerOk([
      ...["run", "--rm", "-v", `${missing}:/x`, ...shell("touch /x/f")],
    ]);
    assert.ok(existsSync(path.join(missing, "f")));
  });

  test("sockets and devices of the host are refused, and say why", async () => {
    for (const [source, kind] of [
      ["/dev/null", "a device"],
      [(process.env["DOCKER_HOST"] ?? "").replace("unix://", ""), "a socket"],
    ] as const) {
      if (!source.startsWith("/")) continue;
      const refused = await docker([
        ...["run", "--rm", "-v", `${source}:/x`, ...shell("true")],
      ]);
      assert.equal(refused.code, 125);
      assert.match(
        refused.stderr,
        new RegExp(`${kind} of the host cannot be used in a virtual machine`),
      );
    }
  });
});

describe("a volume that is a bind of a folder", () => {
  const folder = mkdtempSync(path.join(environment().directory, "bound-"));
  const make = async (device: string, o = "bind") => {
    const name = uniqueName("bound");
    await dockerOk([
      ...["volume", "create", "--opt", "type=none", "--opt", `o=${o}`],
      ...["--opt", `device=${device}`, name],
    ]);
    return name;
  };
  const use = (volume: string, script: string) =>
    docker(["run", "--rm", "-v", `${volume}:/data`, ...shell(script)]);

  test("has the folder's files, which stay when it goes", async () => {
    writeFileSync(path.join(folder, "there"), "before\n");
    const volume = await make(folder);
    const { json } = await api("GET", `/volumes/${volume}`);
    const { Options, Mountpoint } = json as Record<string, unknown>;
    assert.deepEqual(Options, { type: "none", o: "bind", device: folder });
    assert.notEqual(Mountpoint, folder);
    const seen = await use(volume, "cat /data/there; echo new > /data/made");
    assert.deepEqual([seen.code, seen.stdout], [0, "before\n"]);
    assert.equal(readFileSync(path.join(folder, "made"), "utf8"), "new\n");
    await dockerOk(["volume", "rm", volume]);
    assert.ok(existsSync(path.join(folder, "there")));
    assert.ok(existsSync(path.join(folder, "made")));
  });

  test("is not written to with ro", async () => {
    const volume = await make(folder, "bind,ro");
    const refused = await use(volume, "touch /data/no");
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /Read-only file system/);
    assert.equal(existsSync(path.join(folder, "no")), false);
    await dockerOk(["volume", "rm", volume]);
  });

  test("cannot be used without its folder, and Docker's words say so", async () => {
    const missing = path.join(folder, "missing");
    const file = path.join(folder, "file");
    writeFileSync(file, "");
    for (const [device, o, flags, why, code] of [
      // The command takes these words for those of a program that is not there.
      [missing, "bind", "0x1000", "no such file or directory", 127],
      [file, "rbind,ro", "0x5001", "not a directory", 125],
    ] as const) {
      const volume = await make(device, o);
      const { json } = await api("GET", `/volumes/${volume}`);
      const { Mountpoint } = json as { Mountpoint: string };
      const words = `error while mounting volume '${Mountpoint}': failed to mount local volume: mount ${device}:${Mountpoint}, flags: ${flags}: ${why}`;
      const run = await use(volume, "true");
      assert.equal(run.code, code);
      assert.ok(run.stderr.includes(words), run.stderr);
      const name = uniqueName("bound");
      await dockerOk([
        ...["create", "--name", name, "-v", `${volume}:/data`],
        ...shell("true"),
      ]);
      const start = await api("POST", `/containers/${name}/start`);
      assert.deepEqual([start.status, messageOf(start)], [500, words]);
      const { State } = await inspect<{
        State: { Status: string; ExitCode: number; Error: string };
      }>(name);
      assert.deepEqual(
        [State.Status, State.ExitCode, State.Error],
        ["created", 128, words],
      );
      // It starts once the folder is there.
      if (device === missing) {
        mkdirSync(missing);
        await dockerOk(["start", "-a", name]);
      }
      await removeContainers(name);
      await dockerOk(["volume", "rm", volume]);
    }
  });
});

describe("what the image has at a volume's place", () => {
  const name = uniqueName("filled");
  const volume = uniqueName("filled");
  after(() => removeContainers(name));

  test("becomes the empty volume's content, with owners, modes, links and attributes", async () => {
    const look =
      "cd /data; ls -A | grep -v long-name | sort; stat -c '%a %u:%g %F' setuid owned sticky fifo null; stat -c '%i' link-a link-b | uniq | wc -l; readlink symlink; stat -c %Y old-time";
    const inImage = await dockerOk([
      ...["run", "--rm", imageRef("layers"), "sh", "-c", look],
    ]);
    const inVolume = await dockerOk([
      ...["run", "--name", name, "-v", `${volume}:/data`],
      ...[imageRef("layers"), "sh", "-c", look],
    ]);
    assert.equal(inVolume, inImage);
    const { json } = await api("GET", `/volumes/${volume}`);
    const { Mountpoint } = json as { Mountpoint: string };
    const owned = statSync(path.join(Mountpoint, "owned"));
    if (environment().root) {
      assert.deepEqual([owned.uid, owned.gid], [1000, 29]);
    }
    // A volume that has something keeps it, and one that was emptied stays so.
    execFileSync("rm", ["-rf", Mountpoint]);
    mkdirSync(Mountpoint);
    const again = await docker(["start", "-a", name]);
    assert.doesNotMatch(again.stdout, /setuid/);
    const none = await dockerOk([
      ...["run", "--rm", "-v", `${volume}:/data:nocopy`],
      ...[imageRef("layers"), "ls", "-A", "/data"],
    ]);
    assert.equal(none, "");
  });

  test("also where a name is no text", async () => {
    const [made, image] = [uniqueName("odd"), uniqueName("odd")];
    const odd = `"/odd/$(printf 'a\\377b')"`;
    await dockerOk([
      ...["run", "--name", made],
      ...shell(`mkdir /odd; echo kept > ${odd}; ln -s ${odd} /odd/link`),
    ]);
    await dockerOk(["commit", made, image]);
    const seen = await dockerOk([
      ...["run", "--rm", "-v", "/odd", image, "sh", "-c"],
      `cat ${odd} /odd/link; grep -c ' /odd 9p ' /proc/mounts`,
    ]);
    assert.equal(seen, "kept\nkept\n1");
    await removeContainers(made);
    await dockerOk(["rmi", image]);
  });
});

describe("volumes that nobody named", () => {
  const anonymous = async () =>
    (await dockerOk(["volume", "ls", "-q", "--filter", "dangling=true"]))
      .split("\n")
      .filter((name) => /^[0-9a-f]{64}$/.test(name));

  test("go with --rm and rm -v, stay with rm, and go with prune", async () => {
    const before = await anonymous();
    await dockerOk(["run", "--rm", "-v", "/data", ...shell("touch /data/x")]);
    assert.deepEqual(await anonymous(), before);
    const [one, other] = [uniqueName("anonymous"), uniqueName("anonymous")];
    await dockerOk(["create", "--name", one, "-v", "/data", ...shell("true")]);
    await dockerOk(["rm", "-v", one]);
    assert.deepEqual(await anonymous(), before);
    await dockerOk([
      ...["create", "--name", other, "-v", "/data", ...shell("true")],
    ]);
    await dockerOk(["rm", other]);
    const left = (await anonymous()).filter((name) => !before.includes(name));
    assert.equal(left.length, 1);
    const named = uniqueName("named");
    await dockerOk(["volume", "create", named]);
    const pruned = await dockerOk(["volume", "prune", "-f"]);
    assert.match(pruned, new RegExp(left[0] ?? "none"));
    assert.doesNotMatch(pruned, new RegExp(named));
    await dockerOk(["volume", "rm", named]);
  });
});

describe("containers that share a volume", () => {
  const [first, second] = [uniqueName("first"), uniqueName("second")];
  const volume = uniqueName("shared");
  const inside = (name: string, script: string) =>
    dockerOk(["exec", name, "sh", "-c", script]);

  before(async () => {
    await dockerOk([
      ...["run", "-d", "--name", first, "-v", `${volume}:/data`],
      ...shell("sleep 1000"),
    ]);
    await dockerOk([
      ...["run", "-d", "--name", second, "--volumes-from", first],
      ...shell("sleep 1000"),
    ]);
  });
  after(async () => {
    await removeContainers(first, second);
    await docker(["volume", "rm", volume]);
  });

  test("see each other's writes, appends and renames at once", async () => {
    await inside(first, "echo 1 >> /data/log; mkdir /data/d; touch /data/d/f");
    await inside(second, "echo 2 >> /data/log; mv /data/d /data/e");
    await inside(first, "echo 3 >> /data/log");
    assert.equal(await inside(second, "cat /data/log"), "1\n2\n3");
    assert.equal(
      await inside(first, "ls /data /data/e"),
      await inside(second, "ls /data /data/e"),
    );
    await inside(
      first,
      "exec 3>/data/open; echo early >&3; rm /data/open; echo late >&3; test -s /proc/self/fd/3",
    );
  });

  test("what a guest plants leads to nothing of the host's", async () => {
    const folder = path.join(environment().directory, uniqueName("planted"));
    mkdirSync(folder);
    symlinkSync("/etc/hostname", path.join(folder, "of-the-host"));
    const { stdout } = await docker([
      ...["run", "--rm", "-v", `${folder}:/x`, "--hostname", "in-the-guest"],
      ...shell(
        "cat /x/of-the-host; ln -s ../../../../etc /x/up; ls /x/up/hostname; ln -s / /x/root; ls -d /x/root/x",
      ),
    ]);
    assert.equal(stdout, "in-the-guest\n/x/up/hostname\n/x/root/x\n");
    // A folder inside of a volume is looked for inside of it, too.
    const lost = await docker([
      ...[
        "run",
        "--rm",
        "--mount",
        `type=volume,src=${volume},dst=/y,volume-subpath=no/such`,
      ],
      ...shell("true"),
    ]);
    assert.notEqual(lost.code, 0);
    assert.match(lost.stderr, /no\/such: No such file or directory/);
    await inside(first, "ln -s /etc /data/etc");
    const out = await docker([
      ...[
        "run",
        "--rm",
        "--mount",
        `type=volume,src=${volume},dst=/y,volume-subpath=etc`,
      ],
      ...shell("true"),
    ]);
    assert.notEqual(out.code, 0);
  });

  test("docker cp reaches into volumes and binds of a stopped container, too", async () => {
    const name = uniqueName("stopped");
    const folder = mkdtempSync(path.join(environment().directory, "bind-"));
    const file = path.join(folder, "file");
    writeFileSync(file, "from the host\n");
    await dockerOk([
      ...["create", "--name", name, "--volumes-from", `${first}:ro`],
      ...["-v", `${folder}:/bind`, ...shell("true")],
    ]);
    try {
      await inside(first, "echo in the volume > /data/seen");
      await dockerOk(["cp", `${name}:/data/seen`, path.join(folder, "seen")]);
      assert.equal(
        readFileSync(path.join(folder, "seen"), "utf8"),
        "in the volume\n",
      );
      await dockerOk(["cp", file, `${name}:/bind/copy`]);
      assert.equal(
        readFileSync(path.join(folder, "copy"), "utf8"),
        "from the host\n",
      );
      const refused = await docker(["cp", file, `${name}:/data/copy`]);
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /mounted volume is marked read-only/);
      assert.equal(await inside(first, "ls /data | grep -c copy || true"), "0");
    } finally {
      await removeContainers(name);
    }
  });

  test("keep them when the daemon is killed, and no server is left behind", async () => {
    await Daemon.shared().crashAndRestart();
    await inside(first, "echo after >> /data/log");
    assert.match(await inside(second, "cat /data/log"), /after$/);
    const servers = () =>
      execFileSync("ps", ["-eo", "args"], { encoding: "utf8" })
        .split("\n")
        .filter((line) => /hull-share /.test(line))
        .filter((line) => line.includes(environment().daemon));
    assert.equal(servers().length, 2);
    await removeContainers(first, second);
    assert.deepEqual(servers(), []);
  });
});

describe(
  "locks in a shared volume",
  { skip: environment().debian ? false : "needs the Debian image" },
  () => {
    const [holder, other] = [uniqueName("holder"), uniqueName("other")];
    const volume = uniqueName("locks");
    after(async () => {
      await removeContainers(holder, other);
      await docker(["volume", "rm", volume]);
    });

    test("hold containers off each other, until the one that has it is gone", async () => {
      const run = (name: string, ...command: string[]) =>
        dockerOk([
          ...["run", "-d", "--name", name, "-v", `${volume}:/data`],
          ...[imageRef("debian"), ...command],
        ]);
      await run(holder, "flock", "-x", "/data/lock", "sleep", "1000");
      await run(other, "sleep", "1000");
      const tryLock = () =>
        docker(["exec", other, "flock", "-n", "/data/lock", "true"]);
      await eventually(async () => assert.equal((await tryLock()).code, 1));
      const waits = docker([
        "exec",
        other,
        "flock",
        "/data/lock",
        "echo",
        "got it",
      ]);
      await removeContainers(holder);
      assert.equal((await waits).stdout, "got it\n");
      assert.equal((await tryLock()).code, 0);
    });
  },
);
