import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { decode, encode } from "dns-packet";
import { Daemon } from "./harness/daemon.js";
import {
  docker,
  dockerOk,
  inspect,
  removeContainers,
  uniqueName,
} from "./harness/docker.js";
import { busybox } from "./harness/environment.js";

const net = uniqueName("dns");
const inside = uniqueName("dns-inside");
const one = uniqueName("one");
const two = uniqueName("two");
const asker = uniqueName("asker");
const walled = uniqueName("walled");
const containers = [one, two, asker, walled];
const skip = process.getuid?.() !== 0 ? "not root" : false;

async function lookup(from: string, ...query: string[]): Promise<string> {
  const { stdout, stderr } = await docker(["exec", from, "nslookup", ...query]);
  // What is behind the server's own address.
  return (stdout + stderr).replace(/^Server:.*\nAddress:.*\n/, "");
}

async function addressOf(name: string, network: string): Promise<string> {
  const { NetworkSettings } = await inspect<{
    NetworkSettings: { Networks: Record<string, { IPAddress: string }> };
  }>(name);
  return NetworkSettings.Networks[network]?.IPAddress ?? "";
}

describe("the name service", { skip }, () => {
  const other = createSocket("udp4");
  const asked: string[] = [];

  before(async () => {
    // The host's resolver: at the default bridge's address, where hull serves no names.
    const host = await dockerOk([
      ...["network", "inspect", "bridge", "-f"],
      "{{(index .IPAM.Config 0).Gateway}}",
    ]);
    other.bind(53, host);
    await once(other, "listening");
    other.on("message", (message, from) => {
      const { id = 0, questions = [] } = decode(message);
      const { name = "", type = "A" } = questions[0] ?? {};
      asked.push(name);
      const known = name === "outside.example" && type === "A";
      const answer = encode({
        type: "response",
        id,
        flags: name === "outside.example" ? 0 : 3,
        questions,
        answers: known ? [{ type: "A", name, data: "192.0.2.44" }] : [],
      });
      other.send(answer, from.port, from.address);
    });
    await dockerOk(["network", "create", "--ipv6", net]);
    await dockerOk(["network", "create", "--internal", inside]);
    const run = (name: string, ...args: string[]) =>
      dockerOk([
        ...["run", "-d", "--name", name, ...args],
        ...[busybox(), "sleep", "10000"],
      ]);
    await run(one, "--network", net, "--network-alias", "both");
    await run(two, "--network", net, "--network-alias", "both");
    await run(asker, "--network", net, "--dns", host);
    await run(walled, "--privileged", "--network", inside, "--dns", host);
  });
  after(async () => {
    other.close();
    await removeContainers(...containers);
    await docker(["network", "rm", net, inside]);
  });

  test("knows containers by name, alias and short ID, forwards and back", async () => {
    const address = await addressOf(one, net);
    const { Id } = await inspect(one);
    for (const name of [
      one,
      one.toUpperCase(),
      Id.slice(0, 12),
      `${one}.${net}`,
    ]) {
      assert.match(
        await lookup(asker, name),
        new RegExp(`Address: ${address}\n`),
        name,
      );
    }
    const both = await lookup(asker, "both");
    for (const name of [one, two]) {
      assert.match(both, new RegExp(await addressOf(name, net)));
    }
    assert.match(await lookup(asker, "-type=aaaa", one), /Address: fd/);
    assert.match(
      await lookup(asker, address),
      new RegExp(`name = ${one}\\.${net}`),
    );
    assert.deepEqual(asked, []);
  });

  test("a renamed container has its new name, a stopped one none", async () => {
    const fresh = uniqueName("renamed");
    await dockerOk(["rename", two, fresh]);
    containers.push(fresh);
    assert.match(
      await lookup(asker, fresh),
      new RegExp(await addressOf(fresh, net)),
    );
    assert.doesNotMatch(await lookup(asker, two), /Name:/);
    await dockerOk(["stop", "-t", "0", fresh]);
    assert.doesNotMatch(await lookup(asker, fresh), /Name:/);
  });

  test("asks the container's resolvers for the rest; what they do not know stays so", async () => {
    assert.match(
      await lookup(asker, "-type=a", "outside.example"),
      /Address: 192\.0\.2\.44/,
    );
    assert.match(await lookup(asker, "nowhere.example"), /NXDOMAIN/);
    assert.ok(asked.includes("nowhere.example"));
  });

  test("asks nobody for a container on an internal network", async () => {
    asked.splice(0);
    assert.match(await lookup(walled, "outside.example"), /SERVFAIL/);
    assert.deepEqual(asked, []);
    assert.match(await lookup(walled, walled), /Name:/);
  });

  test("answers nobody who is not on the network", async () => {
    const gateway = await dockerOk([
      ...["network", "inspect", net, "-f"],
      "{{(index .IPAM.Config 0).Gateway}}",
    ]);
    // Its root finds a way to the host that its network does not have by itself.
    const near = await dockerOk([
      ...["network", "inspect", inside, "-f"],
      "{{(index .IPAM.Config 0).Gateway}}",
    ]);
    await dockerOk([
      "exec",
      walled,
      "ip",
      "route",
      "add",
      gateway,
      "via",
      near,
    ]);
    assert.match(await lookup(walled, one, gateway), /REFUSED/);
  });

  test("is there again after a restart of the daemon", async () => {
    await Daemon.shared().stop("SIGKILL");
    await Daemon.shared().start();
    assert.match(
      await lookup(asker, one),
      new RegExp(await addressOf(one, net)),
    );
  });

  test("a flood of queries does not keep it from answering others", async () => {
    await docker([
      ...["exec", "-d", asker, "sh", "-c"],
      "for i in 1 2 3 4; do (while true; do nslookup nowhere.example; done > /dev/null 2>&1 &) done; sleep 3; killall sh nslookup",
    ]);
    const address = await addressOf(one, net);
    for (let i = 0; i < 3; i++) {
      assert.match(await lookup(one, one), new RegExp(address));
    }
  });
});
