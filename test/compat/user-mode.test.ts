import assert from "node:assert/strict";
import net from "node:net";
import { networkInterfaces } from "node:os";
import path from "node:path";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import { Daemon } from "./harness/daemon.js";
import { cliOf } from "./harness/docker.js";
import { busybox, environment } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

/** As without root: QEMU's own network, for each machine its own. */
describe("user-mode networking", () => {
  const daemon = new Daemon(path.join(environment().directory, "user"));
  const { docker, ok } = cliOf(daemon, { timeout: 120_000 });
  const ipv6 = (networkInterfaces()["lo"] ?? []).some(
    ({ address }) => address === "::1",
  );
  const hosts = ["127.0.0.1", ...(ipv6 ? ["::1"] : [])];
  const answer = (host: string, port: number) =>
    text(net.connect({ host, port }));
  const answers = (port: number) =>
    eventually(async () => {
      for (const host of hosts)
        assert.equal(await answer(host, port), "hello\n", host);
    });

  before(async () => {
    await daemon.start(["--network-mode", "user", "--warm", "0"]);
    await ok(["pull", "-q", busybox()]);
  });
  after(() => daemon.destroy());

  test("publishes at both families, also for a daemon that was killed and started again", async () => {
    await ok([
      ...["run", "-d", "--name", "web", "-p", "80", busybox()],
      ...["nc", "-ll", "-p", "80", "-e", "echo", "hello"],
    ]);
    const [first = "", ...more] = (await ok(["port", "web", "80"])).split("\n");
    const port = Number(/^0\.0\.0\.0:(\d+)$/.exec(first)?.[1]);
    assert.deepEqual(more, ipv6 ? [`[::]:${port}`] : []);
    await answers(port);
    await daemon.stop("SIGKILL");
    assert.equal(await answer("127.0.0.1", port), "hello\n");
    await daemon.start();
    await answers(port);
    const taken = await docker([
      ...["run", "--rm", "-p", `${port}:80`, busybox(), "true"],
    ]);
    assert.equal(taken.code, 125);
    assert.match(taken.stderr, /port is already allocated/);
    await ok(["rm", "-f", "web"]);
    for (const host of hosts)
      await assert.rejects(answer(host, port), { code: "ECONNREFUSED" });
  });

  test("an IPv6 address alone, and networks of users, are refused", async () => {
    const alone = await docker([
      ...["run", "--rm", "-p", "[::1]::80", busybox(), "true"],
    ]);
    assert.equal(alone.code, 125);
    assert.match(
      alone.stderr,
      /cannot publish at the IPv6 address \[::1\] only: a daemon that is not root/,
    );
    const network = await docker(["network", "create", "mine"]);
    assert.equal(network.code, 1);
  });
});
