/**
 * What templates need is taken away: a folder that is read-only or full, a QEMU that is another one now.
 * Containers start by the slower way, and one line of the log says why. Root only: it mounts file systems.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  renameSync,
  symlinkSync,
} from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Daemon, traceOf } from "./harness/daemon.js";
import { cliOf, uniqueName } from "./harness/docker.js";
import { environment, imageRef } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

const IMAGE = imageRef("busybox");
const NOT_MADE =
  "a machine template could not be made: machines of its kind are booted";

/** A daemon whose machines are restored, and what is asked of it here. */
function subject(folder: string, bridge: string) {
  const daemon = new Daemon(path.join(environment().directory, folder));
  const { ok } = cliOf(daemon, { timeout: 120_000 });
  const flags = ["--warm", "0", "--zygote", "off", "--bridge", bridge];
  return {
    daemon,
    ok,
    flags,
    /** Runs a container, which is to succeed. @returns how its machine came up */
    run: async (): Promise<string> => {
      const name = uniqueName("template");
      const said = await ok(["run", "--name", name, IMAGE, "echo", "here"]);
      assert.equal(said, "here");
      const { kind } = traceOf(daemon, name);
      await ok(["rm", name]);
      return kind;
    },
    /** Of this message, what the log's lines say else. */
    told: (message: string) =>
      daemon
        .logTail(100_000)
        .split("\n")
        .filter((line) => line.includes(message))
        .map((line) => JSON.parse(line) as Record<string, unknown>),
    /** Resolves when the template of the daemon's own size is there. */
    template: () =>
      eventually(
        () => {
          const root = path.join(daemon.dataRoot, "templates");
          const [platform = ""] = readdirSync(root);
          const shapes = readdirSync(path.join(root, platform));
          assert(
            shapes.some((shape) => /^512m-1cpu-\w+$/.test(shape)),
            shapes.join(),
          );
        },
        { timeout: 90_000, what: "a template is made" },
      ),
  };
}

const skip = !environment().root;

describe("a templates folder", { skip, timeout: 400_000 }, () => {
  const { daemon, ok, flags, run, told, template } = subject(
    "tf",
    `htf${process.pid}`,
  );
  const folder = path.join(daemon.dataRoot, "templates");
  const mount = (...args: string[]) => execFileSync("mount", [...args, folder]);

  before(async () => {
    mkdirSync(folder, { recursive: true });
    mount("-t", "tmpfs", "-o", "ro,mode=700", "none");
    await daemon.start(flags);
    await ok(["pull", IMAGE]);
  });
  after(async () => {
    await daemon.destroy(true);
    execFileSync("umount", [folder]);
    await daemon.destroy();
  });

  test("that is read-only: machines are booted, and one line says why", async () => {
    assert.equal(await run(), "cold");
    await eventually(() => assert.equal(told(NOT_MADE).length, 1), {
      timeout: 30_000,
    });
    assert.match(String(told(NOT_MADE)[0]?.["reason"]), /EROFS|read-only/i);
    assert.equal(await run(), "cold");
    assert.equal(told(NOT_MADE).length, 1);
  });

  test("that has no room: the same, and nothing is left in it", async () => {
    await daemon.stop("SIGTERM");
    mount("-o", "remount,rw,size=16m");
    await daemon.start();
    assert.equal(await run(), "cold");
    await eventually(() => assert.equal(told(NOT_MADE).length, 2), {
      timeout: 30_000,
    });
    assert.match(
      String(told(NOT_MADE)[1]?.["reason"]),
      /^no space left on device/,
    );
    const left = readdirSync(folder, { recursive: true, encoding: "utf8" });
    assert.deepEqual(
      left.filter((name) => name.includes("/")),
      [],
    );
  });

  test("that becomes read-only later: its templates are used", async () => {
    await daemon.stop("SIGTERM");
    mount("-o", "remount,rw,size=1g");
    await daemon.start();
    await template();
    mount("-o", "remount,ro");
    assert.equal(await run(), "restored");
    assert.equal(told(NOT_MADE).length, 2);
  });
});

describe("a QEMU", { skip, timeout: 400_000 }, () => {
  const { daemon, ok, flags, run, told, template } = subject(
    "tq",
    `htq${process.pid}`,
  );
  const tree = path.join(environment().directory, "tq-usr");
  const binary = path.join(tree, "bin", "qemu-system-x86_64");

  before(async () => {
    // It finds its firmware and modules by where it is itself.
    mkdirSync(path.dirname(binary), { recursive: true });
    for (const name of ["share", "lib"]) {
      symlinkSync(path.join("/usr", name), path.join(tree, name));
    }
    copyFileSync("/usr/bin/qemu-system-x86_64", binary);
    await daemon.start(flags, {
      PATH: `${path.dirname(binary)}:${process.env["PATH"] ?? ""}`,
    });
    await ok(["pull", IMAGE]);
  });
  after(() => daemon.destroy());

  test("that is replaced under the daemon: machines are booted until there is a template of the new one", async () => {
    const REPLACED = "what machines are made of was replaced";
    await template();
    assert.equal(await run(), "restored");
    const running = await ok([
      ...["run", "-d", "--name", "before", IMAGE, "sleep", "1000"],
    ]);
    assert.equal(told(REPLACED).length, 0);

    // As a package manager does it: another file of that name.
    copyFileSync(binary, `${binary}.new`);
    appendFileSync(`${binary}.new`, "another build");
    renameSync(`${binary}.new`, binary);

    assert.equal(await run(), "cold");
    assert.deepEqual(
      told(REPLACED).map(({ replaced }) => replaced),
      ["QEMU"],
    );
    await eventually(async () => assert.equal(await run(), "restored"), {
      timeout: 90_000,
      interval: 2000,
      what: "machines are restored from the new one's template",
    });
    assert.equal(told(REPLACED).length, 1);
    // What ran goes on, and is looked after.
    assert.equal(await ok(["exec", "before", "echo", "on"]), "on");
    await ok(["rm", "-f", running]);
  });
});
