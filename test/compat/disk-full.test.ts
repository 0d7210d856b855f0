/** A daemon whose data root has no room left. Root only: it is a file system of its own. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  mkdirSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Daemon } from "./harness/daemon.js";
import { cliOf } from "./harness/docker.js";
import { environment, imageRef } from "./harness/environment.js";
import { image, layer } from "./harness/image-builder.js";
import { push } from "./harness/registry.js";
import { fault } from "./harness/figures.js";
import { eventually, sleep } from "./harness/wait.js";

const MiB = 1024 * 1024;
const ROOM = 320 * MiB;
const IMAGE = imageRef("busybox");

describe("a data root that is full", { skip: !environment().root }, () => {
  const bridge = `hdf${process.pid}`;
  const daemon = new Daemon(path.join(environment().directory, "full"));
  const disk = path.join(daemon.directory, "disk");
  const filler = path.join(daemon.dataRoot, "filler");
  let used: number;

  const { docker, ok } = cliOf(daemon);

  before(async () => {
    mkdirSync(daemon.dataRoot, { recursive: true });
    writeFileSync(disk, "");
    truncateSync(disk, ROOM);
    // What is removed is free at once, not with the journal's next commit.
    const options = ["-q", "-m", "0", "-O", "^has_journal"];
    execFileSync("mkfs.ext4", [...options, disk]);
    execFileSync("mount", ["-o", "loop", disk, daemon.dataRoot]);
    await daemon.start([
      ...["--bridge", bridge, "--disk-size", "1g"],
      ...["--warm", "0", "--zygote", "off"],
    ]);
    await ok(["pull", IMAGE]);
    await ok(["run", "--rm", IMAGE, "true"]);
    // The template that was made of the machine takes room, too.
    await eventually(() => assert.deepEqual(daemon.machines(), []), {
      timeout: 60_000,
    });
    used = usedBytes();
  });
  after(async () => {
    await daemon.destroy(true);
    execFileSync("umount", [daemon.dataRoot]);
    rmSync(daemon.directory, { recursive: true });
  });

  function usedBytes(): number {
    const { blocks, bavail, bsize } = statfsSync(daemon.dataRoot);
    return (blocks - bavail) * bsize;
  }

  /**
   * Space that was taken is free again. What the tests take and would leave is ten times as much as what
   * records and the machines' template come to.
   */
  const givenBack = () =>
    eventually(
      () => {
        const more = usedBytes() - used;
        assert.ok(more < 4 * MiB, `${more} bytes are not given back`);
      },
      { timeout: 30_000 },
    );

  for (const [what, block] of [
    ["a layer is downloaded", () => randomBytes(80 * MiB)],
    // 16 KiB over and over: small as an archive, and beyond the room when unpacked.
    [
      "a layer is unpacked",
      () => Buffer.concat(Array(80 * 64).fill(randomBytes(16 * 1024))),
    ],
  ] as const) {
    test(`while ${what}: the pull fails, says why, and gives the space back`, async (t) => {
      const tag = what.replaceAll(" ", "-");
      await push(
        environment().registries.plain,
        "toobig",
        tag,
        image([await layer([{ name: "content", content: block() }])], {}),
      );
      fill(40 * MiB);
      const { code, stderr } = await docker(["pull", imageRef("toobig", tag)]);
      assert.equal(code, 1);
      assert.match(stderr, /no space left on device/i);
      await daemon.ping();
      assert.equal(await ok(["images", "-q", imageRef("toobig", tag)]), "");
      rmSync(filler);
      await givenBack();
      await ok(["run", "--rm", IMAGE, "true"]);
      fault(t, `disk full while ${what}: error, room given back`, 1, 0);
    });
  }

  test("while a log is written: the container waits, and no line is lost", async (t) => {
    const writer =
      'trap "over=1" TERM; i=0; while [ -z "$over" ]; do i=$((i+1)); echo $i; done; echo end $i';
    await ok(["run", "-d", "--name", "logger", IMAGE, "sh", "-c", writer]);
    fill(512 * 1024);
    await eventually(
      () => assert.match(daemon.logTail(200), /ENOSPC|no space/),
      {
        timeout: 60_000,
      },
    );
    await daemon.ping();
    assert.equal(
      await ok(["ps", "-q", "--filter", "name=logger"]).then((id) => id.length),
      12,
    );
    await sleep(1500);
    rmSync(filler);
    await sleep(500);
    await ok(["stop", "-t", "30", "logger"]);
    const lines = (await ok(["logs", "logger"])).split("\n");
    assert.equal(lines.pop(), `end ${lines.length}`);
    assert.equal(
      lines.findIndex((line, at) => line !== String(at + 1)),
      -1,
    );
    await ok(["rm", "logger"]);
    await givenBack();
    fault(t, "disk full while a log is written: lines", 1, 0);
  });

  test("while a container writes: it stands still until there is room, and loses nothing", async (t) => {
    const script =
      "dd if=/dev/urandom of=/data bs=1M count=24 2>/dev/null; sync; sha256sum < /data; sha256sum < /data; echo written";
    fill(8 * MiB);
    await ok(["run", "-d", "--name", "writer", IMAGE, "sh", "-c", script]);
    await eventually(
      () => assert.match(daemon.logTail(200), /stands still.*No space left/),
      { timeout: 180_000 },
    );
    await daemon.ping();
    assert.equal(await ok(["logs", "writer"]), "");
    rmSync(filler);
    assert.equal(await ok(["wait", "writer"]), "0");
    const [one, two, last] = (await ok(["logs", "writer"])).split("\n");
    assert.match(one ?? "", /^[0-9a-f]{64}/);
    assert.equal(one, two);
    assert.equal(last, "written");
    await ok(["rm", "writer"]);
    await givenBack();
    fault(t, "disk full while a container writes", 1, 0);
  });

  /** Leaves only so many bytes, or fewer where a container writes meanwhile. */
  function fill(left: number): void {
    const { bavail, bsize } = statfsSync(daemon.dataRoot);
    const bytes = Math.max(0, bavail * bsize - left);
    try {
      writeFileSync(filler, Buffer.alloc(bytes, 1));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    }
  }
});
