import assert from "node:assert/strict";
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, describe, test } from "node:test";
import { Unavailable } from "../../errors.js";
import { chooseAccelerator, type AcceleratorOptions } from "./accelerator.js";

describe("accelerator", { timeout: 20_000 }, () => {
  let root: string;
  const roots: string[] = [];
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "hull-acc-"));
    roots.push(root);
    writeFileSync(join(root, "kvm"), "");
  });
  after(() =>
    roots.forEach((each) => rmSync(each, { recursive: true, force: true })),
  );

  /** A program in QEMU's place, and one in the launcher's. */
  function options(script: string): AcceleratorOptions {
    const binary = join(root, "qemu");
    writeFileSync(binary, `#!/bin/sh\necho run >> ${root}/runs\n${script}\n`);
    chmodSync(binary, 0o755);
    const launcher = join(root, "launcher");
    const skip = 'while [ "$1" != -- ]; do shift; done; shift';
    writeFileSync(launcher, `#!/bin/sh\n${skip}; exec "$@"\n`);
    chmodSync(launcher, 0o755);
    return {
      setting: "auto",
      platform: {
        binary,
        kernel: "/k",
        initramfs: "/i",
        tscKhz: undefined,
        jail: { launcher, firstUid: 0 },
        sendFiles: () => 0,
      },
      subject: { kernelHash: "k", initramfsHash: "i", qemuVersion: "7" },
      memoryFile: join(root, "accelerator.json"),
      runDirectory: join(root, "run"),
      kvmDevice: join(root, "kvm"),
      trialMs: 300,
    };
  }
  const runs = () =>
    readFileSync(join(root, "runs"), "utf8").split("\n").length - 1;

  test("TCG is taken when asked for, without a trial", async () => {
    const choice = await chooseAccelerator({
      ...options("exit 1"),
      setting: "tcg",
    });
    assert.equal(choice.accelerator, "tcg");
    assert(!readdirSync(root).includes("runs"));
  });

  test("without the device there is nothing to try", async () => {
    const choice = await chooseAccelerator({
      ...options("exit 1"),
      kvmDevice: join(root, "none"),
    });
    assert.equal(choice.accelerator, "tcg");
    assert.match(choice.reason, /none is not there/);
  });

  test("QEMU's complaint is the reason", async () => {
    const choice = await chooseAccelerator(
      options("echo 'qemu: failed to initialize kvm: broken' >&2; exit 1"),
    );
    assert.equal(choice.accelerator, "tcg");
    assert.match(choice.reason, /failed to initialize kvm: broken/);
  });

  test("a trial that hangs is killed and remembered", async () => {
    const opts = options(`echo $$ > ${root}/pid; exec sleep 100`);
    const choice = await chooseAccelerator(opts);
    assert.equal(choice.accelerator, "tcg");
    assert.match(choice.reason, /did not boot the guest kernel within 0.3 s/);
    const pid = Number(readFileSync(join(root, "pid"), "utf8"));
    assert.throws(() => process.kill(pid, 0), { code: "ESRCH" });
    assert.deepEqual(readdirSync(join(root, "run")), []);

    assert.deepEqual(await chooseAccelerator(opts), choice);
    assert.equal(runs(), 1);
    const subject = { ...opts.subject, kernelHash: "another" };
    await chooseAccelerator({ ...opts, subject });
    assert.equal(runs(), 2);
  });

  test("KVM that is demanded and does not work is an error, tried afresh", async () => {
    const opts = options("echo 'qemu: no kvm' >&2; exit 1");
    await chooseAccelerator(opts);
    await assert.rejects(
      chooseAccelerator({ ...opts, setting: "kvm" }),
      (error: Error) =>
        error instanceof Unavailable &&
        /asks for KVM.*no kvm/.test(error.message),
    );
    assert.equal(runs(), 2);
  });

  test("a damaged memory is no obstacle", async () => {
    const opts = options("exit 1");
    writeFileSync(opts.memoryFile, '{"key":');
    assert.equal((await chooseAccelerator(opts)).accelerator, "tcg");
    assert.match(readFileSync(opts.memoryFile, "utf8"), /failure/);
  });
});
