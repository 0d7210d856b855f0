/** Guest kernels beside the daemon's own, by name. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { after, before, describe, test } from "node:test";
import { docker, dockerOk, uniqueName } from "./harness/docker.js";
import { Daemon } from "./harness/daemon.js";
import { busybox, environment } from "./harness/environment.js";

const VMLINUX = fileURLToPath(new URL("../../build/vmlinux", import.meta.url));
const BRIDGE = `hk${process.pid}`;
const LABEL = "org.hull.kernel";

describe("a container's own kernel", () => {
  const folder = path.join(environment().directory, "k");
  const daemon = new Daemon(folder);
  const host = () => ({ host: daemon.host });
  const run = (kernel: string | undefined, ...args: string[]) =>
    docker(
      [
        ...["run", "--rm"],
        ...(kernel === undefined ? [] : ["--label", `${LABEL}=${kernel}`]),
        ...[busybox(), ...args],
      ],
      host(),
    );

  before(async () => {
    mkdirSync(folder, { recursive: true });
    // Another kernel: it says another release of itself.
    const own = readFileSync(VMLINUX);
    for (let at = -1; (at = own.indexOf("-hull", at + 1)) >= 0;) {
      own.write("-mine", at);
    }
    writeFileSync(path.join(folder, "mine"), own);
    writeFileSync(path.join(folder, "text"), "no kernel\n");
    writeFileSync(
      path.join(folder, "hulld.json"),
      JSON.stringify({
        "kernel-parameters": "hull.test=default",
        kernels: {
          mine: {
            path: path.join(folder, "mine"),
            parameters: "hull.test=1 loglevel=3",
          },
          broken: { path: path.join(folder, "text") },
        },
      }),
    );
    await daemon.start([
      ...["--config-file", path.join(folder, "hulld.json")],
      ...["--warm", "0"],
      ...(environment().root ? ["--bridge", BRIDGE] : []),
    ]);
    await dockerOk(["pull", busybox()], host());
  });
  after(() => daemon.destroy());

  test("is chosen by a label, with its own command line; the others have the daemon's", async () => {
    const script = "uname -r; cat /proc/cmdline";
    for (let time = 0; time < 2; time++) {
      const mine = await run("mine", "sh", "-c", script);
      assert.equal(mine.code, 0, mine.stderr);
      assert.match(
        mine.stdout,
        /^[\d.]+-mine\n.* hull\.test=1 loglevel=3 .*\n$/,
      );
      const other = await run(undefined, "sh", "-c", script);
      assert.match(other.stdout, /^[\d.]+-hull\n.* hull\.test=default .*\n$/);
    }
  });

  test("an unknown name is refused, and nothing is made", async () => {
    const { code, stderr } = await run("other", "true");
    assert.equal(code, 125);
    assert.match(
      stderr,
      /invalid label org\.hull\.kernel: no guest kernel is named "other" \(the daemon's configuration has "mine", "broken"\)/,
    );
    assert.equal(await dockerOk(["ps", "-aq"], host()), "");
  });

  test("a file that is no kernel is named when a container is to boot it", async () => {
    const { code, stderr } = await run("broken", "true");
    assert.equal(code, 125);
    assert.match(
      stderr,
      /the guest kernel .*\/text cannot be booted: it is no 64-bit ELF/,
    );
  });

  test("a checkpoint goes on with its kernel", async () => {
    const name = uniqueName("kernel");
    await dockerOk(
      [
        ...["run", "-d", "--name", name, "--label", `${LABEL}=mine`],
        ...[busybox(), "sleep", "1000"],
      ],
      host(),
    );
    await dockerOk(["checkpoint", "create", name, "one"], host());
    await dockerOk(["start", "--checkpoint", "one", name], host());
    const release = await dockerOk(["exec", name, "uname", "-r"], host());
    assert.match(release, /-mine$/);
    await dockerOk(["rm", "-f", name], host());
  });
});
