import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { before, describe, test } from "node:test";
import { api, messageOf } from "./harness/api.js";
import {
  docker,
  dockerOk,
  inspect,
  removeContainers,
  uniqueName,
} from "./harness/docker.js";
import { busybox, environment } from "./harness/environment.js";

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
      Options: null,
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
