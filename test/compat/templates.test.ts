/** Machines come out of templates; a template that is no good costs time and a line in the log, no more. */
import assert from "node:assert/strict";
import { readdirSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Daemon, traceOf } from "./harness/daemon.js";
import { cliOf, uniqueName } from "./harness/docker.js";
import { environment, imageRef } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

const IMAGE = imageRef("busybox");

describe("machine templates", { timeout: 240_000 }, () => {
  const bridge = `htp${process.pid}`;
  const daemon = new Daemon(path.join(environment().directory, "t"));
  const { ok } = cliOf(daemon);

  before(async () => {
    await daemon.start([
      ...["--warm", "0", "--zygote", "off"],
      ...(environment().root ? ["--bridge", bridge] : []),
    ]);
    await ok(["pull", IMAGE]);
  });
  after(() => daemon.destroy());

  /** Runs a container. @returns how its machine came up, and what it said */
  async function run(...command: string[]) {
    const name = uniqueName("template");
    const stdout = await ok(["run", "--name", name, IMAGE, ...command]);
    const { kind } = traceOf(daemon, name);
    await ok(["rm", name]);
    return { kind, stdout };
  }

  /** The folder of the default machines' template, once it is made. */
  async function template(): Promise<string> {
    const root = path.join(daemon.dataRoot, "templates");
    let folder = "";
    await eventually(
      () => {
        const [platform = ""] = readdirSync(root);
        const shapes = readdirSync(path.join(root, platform));
        const made = shapes.find((shape) => /^512m-1cpu-\w+$/.test(shape));
        assert(made, shapes.join());
        folder = path.join(root, platform, made);
      },
      { timeout: 60_000 },
    );
    return folder;
  }

  const complaints = () =>
    daemon
      .logTail(100_000)
      .split("\n")
      .filter((line) => line.includes("a machine template is not used"));

  test("clones have their own random numbers, boot ID, MAC address and time", async () => {
    await template();
    const question = [
      "head -c 16 /dev/urandom | od -An -tx1",
      "cat /proc/sys/kernel/random/boot_id /sys/class/net/eth0/address",
      "ls /sys/class/net",
      "date +%s",
    ].join("; ");
    const answers = await Promise.all(
      Array.from({ length: 3 }, () => run("sh", "-c", question)),
    );
    assert.deepEqual(
      answers.map(({ kind }) => kind),
      ["restored", "restored", "restored"],
    );
    const lines = answers.map(({ stdout }) => stdout.trim().split("\n"));
    for (const line of [0, 1, 2]) {
      const values = new Set(lines.map((answer) => answer[line]));
      assert.equal(values.size, 3, lines.join("\n"));
    }
    for (const answer of lines) {
      assert.deepEqual(answer.slice(3, -1), ["eth0", "lo"]);
      assert(Math.abs(Number(answer.at(-1)) - Date.now() / 1000) < 60);
    }
  });

  test("one that was cut short or altered is made again, and the start succeeds", async () => {
    for (const damage of [
      (folder: string) => truncateSync(path.join(folder, "memory"), 4096),
      (folder: string) => writeFileSync(path.join(folder, "state"), "nonsense"),
    ]) {
      const before = complaints().length;
      damage(await template());
      const { kind, stdout } = await run("echo", "all the same");
      assert.equal(stdout, "all the same");
      assert.equal(kind, "cold");
      assert.equal(complaints().length, before + 1);
    }
    await template();
    assert.equal((await run("true")).kind, "restored");
  });
});
