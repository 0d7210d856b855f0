import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, test, type TestContext } from "node:test";
import { pino } from "pino";
import {
  Conflict,
  Forbidden,
  InvalidParameter,
  NotFound,
  Unavailable,
} from "../errors.js";
import { EventBus } from "../events.js";
import type { ContainerNames } from "./index.js";
import {
  insideNamespace,
  runInNamespace,
  whyNoNamespace,
} from "./test-namespace.js";
import { Networks, type NetworkOptions } from "./service.js";

const log = pino({ level: "silent" });
/** What the running test has opened. */
const opened: Networks[] = [];

function container(digit: string): ContainerNames {
  return {
    id: digit.repeat(64),
    name: `c${digit}`,
    hostname: digit.repeat(12),
  };
}

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "hull-networks-"));
  t.after(async () => {
    await Promise.all(opened.splice(0).map((networks) => networks.close()));
    await rm(path, { recursive: true });
  });
  return path;
}

async function open(
  directory: string,
  options: Partial<NetworkOptions> = {},
): Promise<Networks> {
  const networks = await Networks.open({
    directory,
    driver: "user",
    bridge: "hulltest0",
    mtu: 1500,
    dns: [],
    dnsSearch: [],
    dnsOptions: [],
    events: new EventBus(),
    log,
    ...options,
  });
  opened.push(networks);
  return networks;
}

/** Names of the tap devices on the bridge. */
function taps(): string[] {
  const links = JSON.parse(
    execFileSync("ip", ["-json", "link", "show", "master", "hulltest0"], {
      encoding: "utf8",
    }) || "[]",
  ) as { ifname: string }[];
  return links.map((link) => link.ifname).sort();
}

if (insideNamespace) {
  bridgeTests();
} else {
  userTests();
  const skip = whyNoNamespace();
  test("the bridge driver, in a network namespace", { skip }, () => {
    const { passed, output } = runInNamespace(import.meta.url);
    assert.ok(passed, output);
    assert.match(output, /pass [1-9]/);
  });
}

function userTests(): void {
  test("in user mode a container gets QEMU's addresses and its resolver", async (t) => {
    const networks = await open(await folder(t));
    const endpoint = await networks.attach(container("a"), {
      network: "default",
    });
    assert.deepEqual(endpoint.nic, { kind: "user", mac: "02:42:0a:00:02:0f" });
    assert.deepEqual(endpoint.interface?.addresses, ["10.0.2.15/24"]);
    assert.deepEqual(endpoint.interface?.gateways, ["10.0.2.2"]);
    assert.deepEqual(endpoint.nameservers, ["10.0.2.3"]);
    assert.equal(endpoint.network, "bridge");
  });

  test("the network none has no NIC", async (t) => {
    const networks = await open(await folder(t));
    const endpoint = await networks.attach(container("a"), { network: "none" });
    assert.equal(endpoint.nic, undefined);
    assert.equal(endpoint.interface, undefined);
    assert.equal(endpoint.ipAddress, "");
    assert.equal(networks.get("none").endpoints[0]?.ipv4Address, "");
  });

  test("networks of the host and of other containers are refused with the reason", async (t) => {
    const networks = await open(await folder(t));
    for (const mode of ["host", "container:web"]) {
      assert.throws(() => networks.check(mode), InvalidParameter);
      await assert.rejects(
        networks.attach(container("a"), { network: mode }),
        /virtual machine/,
      );
    }
    networks.check("no-such-network");
    await assert.rejects(
      networks.attach(container("a"), { network: "no-such-network" }),
      {
        name: "NotFound",
        message: "network no-such-network not found",
      },
    );
  });

  test("a container is on a network once, until it is detached", async (t) => {
    const networks = await open(await folder(t));
    await networks.attach(container("a"), { network: "bridge" });
    await assert.rejects(
      networks.attach(container("a"), { network: "bridge" }),
      Forbidden,
    );
    assert.deepEqual(
      networks.get("bridge").endpoints.map((member) => member.containerName),
      ["ca"],
    );
    await networks.detach(container("a").id);
    await networks.detach(container("a").id);
    assert.deepEqual(networks.get("bridge").endpoints, []);
    await networks.attach(container("a"), { network: "bridge" });
  });

  test("networks are found by name, ID and ID prefix, and keep their IDs", async (t) => {
    const directory = await folder(t);
    const first = await open(directory);
    const { id } = first.get("bridge");
    await first.close();
    const networks = await open(directory);
    for (const reference of ["bridge", id, id.slice(0, 12)]) {
      assert.equal(networks.get(reference).id, id);
    }
    assert.throws(() => networks.get(""), NotFound);
    assert.throws(() => networks.get("host"), NotFound);
    assert.deepEqual(
      networks.list().map(({ name, driver }) => [name, driver]),
      [
        ["bridge", "user"],
        ["none", "null"],
      ],
    );
  });

  test("impossible options are refused by name", async (t) => {
    const directory = await folder(t);
    for (const options of [
      { bridge: "a-name-far-too-long" },
      { bridge: "x; flush ruleset" },
      { mtu: 40 },
      { dns: ["x"] },
    ]) {
      await assert.rejects(open(directory, options), InvalidParameter);
    }
  });
}

const config = {
  Subnet: "10.5.0.0/24",
  IPRange: "10.5.0.64/26",
};

function bridgeTests(): void {
  const driver = "bridge";
  afterEach(() => {
    execFileSync("ip", ["link", "del", "hulltest0"]);
  });

  test("containers get taps on the bridge, addresses in order and MACs made from them", async (t) => {
    const networks = await open(await folder(t), { driver });
    const a = await networks.attach(container("a"), { network: "bridge" });
    const b = await networks.attach(container("b"), { network: "bridge" });
    assert.deepEqual(
      [a, b].map((endpoint) => [endpoint.ipAddress, endpoint.macAddress]),
      [
        ["172.17.0.2", "02:42:ac:11:00:02"],
        ["172.17.0.3", "02:42:ac:11:00:03"],
      ],
    );
    assert.equal(a.gateway, "172.17.0.1");
    assert.ok(a.nic?.kind === "tap" && b.nic?.kind === "tap");
    assert.match(a.nic.device, /^hl[0-9a-f]{5}a{8}$/);
    assert.deepEqual(taps(), [a.nic.device, b.nic.device].sort());
    const rules = execFileSync("nft", ["list", "ruleset"], {
      encoding: "utf8",
    });
    assert.match(rules, /table ip hulltest0 {/);
    assert.match(rules, /masquerade/);
    assert.equal(
      (await readFile("/proc/sys/net/ipv4/ip_forward", "utf8")).trim(),
      "1",
    );
    await networks.detach(container("a").id);
    await networks.detach(container("b").id);
    await networks.close();
    assert.deepEqual(taps(), []);
  });

  test("a container that comes back at once finds its tap, whether or not it was deleted", async (t) => {
    const networks = await open(await folder(t), { driver });
    for (let round = 0; round < 5; round++) {
      const { nic } = await networks.attach(container("a"), {
        network: "bridge",
      });
      assert.ok(nic?.kind === "tap");
      assert.deepEqual(taps(), [nic.device]);
      await networks.detach(container("a").id);
      // An even round meets the deletion before it begins, an odd one while it is under way.
      await new Promise((resolve) => setTimeout(resolve, (round % 2) * 5));
    }
  });

  test("a tap made ahead is plugged in by attach, and stays until it is given back", async (t) => {
    const directory = await folder(t);
    const before = await open(directory, { driver });
    const [tap, spare] = [await before.createTap(), await before.createTap()];
    assert.ok(tap && spare);
    assert.deepEqual(taps(), []);
    const { nic } = await before.attach(container("a"), {
      network: "bridge",
      tap,
    });
    assert.deepEqual(nic?.kind === "tap" && nic.device, tap);
    assert.deepEqual(taps(), [tap]);
    await before.detach(container("a").id);
    await before.close();

    const after = await open(directory, { driver });
    after.restoreTap(spare);
    await after.removeOrphans();
    execFileSync("ip", ["link", "show", spare]);
    after.discardTap(spare);
    await after.close();
    for (const gone of [tap, spare]) {
      assert.throws(() =>
        execFileSync("ip", ["link", "show", gone], { stdio: "pipe" }),
      );
    }
  });

  test("a cable that is to be put in later is, unless the endpoint was given back", async (t) => {
    const networks = await open(await folder(t), { driver });
    const plugs: (() => Promise<void>)[] = [];
    const attach = async (name: string) => {
      const tap = await networks.createTap();
      const request = { network: "bridge", ...(tap !== undefined && { tap }) };
      const plugLater = (plug: () => Promise<void>) => void plugs.push(plug);
      await networks.attach(container(name), request, plugLater);
      return tap;
    };
    await attach("a");
    assert.deepEqual(taps(), []);
    await networks.detach(container("a").id);
    await assert.rejects(plugs[0]?.() ?? Promise.resolve(), Unavailable);
    const tap = await attach("b");
    await plugs[1]?.();
    assert.deepEqual(taps(), [tap]);
    await networks.detach(container("b").id);
    await networks.close();
    assert.deepEqual(taps(), []);
  });

  test("a restarted daemon keeps what running containers have and takes back the rest", async (t) => {
    const directory = await folder(t);
    const before = await open(directory, { driver });
    const a = await before.attach(container("a"), { network: "bridge" });
    const b = await before.attach(container("b"), { network: "bridge" });
    await before.close();
    execFileSync("nft", ["delete", "table", "ip", "hulltest0"]);

    const after = await open(directory, { driver });
    await after.restore(container("a"), a, { network: "bridge" });
    // Not handed out while it is not known whether its container still runs.
    const c = await after.attach(container("c"), { network: "bridge" });
    assert.equal(c.ipAddress, "172.17.0.4");
    await after.removeOrphans();
    await after.close();
    assert.ok(a.nic?.kind === "tap" && b.nic?.kind === "tap");
    assert.ok(c.nic?.kind === "tap");
    assert.deepEqual(taps(), [a.nic.device, c.nic.device].sort());
    execFileSync("nft", ["list", "table", "ip", "hulltest0"]);
    const record = JSON.parse(
      await readFile(join(directory, "bridge.json"), "utf8"),
    ) as { leases: { address: string }[] };
    assert.deepEqual(
      record.leases.map((lease) => lease.address),
      ["172.17.0.2", "172.17.0.4"],
    );

    const last = await open(directory, { driver });
    await last.removeOrphans();
    await last.close();
    assert.deepEqual(taps(), []);
  });

  test("the subnet avoids the host's routes, and the configured address counts", async (t) => {
    execFileSync("ip", ["link", "set", "lo", "up"]);
    execFileSync("ip", ["route", "add", "172.17.0.0/16", "dev", "lo"]);
    t.after(() =>
      execFileSync("ip", ["route", "del", "172.17.0.0/16", "dev", "lo"]),
    );
    const networks = await open(await folder(t), { driver });
    assert.deepEqual(networks.get("bridge").subnets, [
      { subnet: "172.18.0.0/16", gateway: "172.18.0.1" },
    ]);
    await networks.close();
    const configured = await open(await folder(t), {
      driver,
      bridgeAddress: "10.77.0.1/24",
    });
    const { ipAddress } = await configured.attach(container("a"), {
      network: "bridge",
    });
    assert.equal(ipAddress, "10.77.0.2");
    const addresses = execFileSync(
      "ip",
      ["-4", "-brief", "address", "show", "hulltest0"],
      { encoding: "utf8" },
    );
    assert.match(addresses, /10\.77\.0\.1\/24/);
    assert.doesNotMatch(addresses, /172\.18/);
    await configured.detach(container("a").id);
    await configured.close();
    await assert.rejects(
      open(await folder(t), { driver, bridgeAddress: "10.77.0.0/24" }),
      InvalidParameter,
    );
  });

  test("two daemons do not share a bridge", async (t) => {
    await open(await folder(t), { driver });
    await assert.rejects(
      open(await folder(t), { driver }),
      (error: Error) =>
        error instanceof Unavailable && /another daemon/.test(error.message),
    );
    const fallback = await open(await folder(t), { driver: "auto" });
    assert.equal(fallback.get("bridge").driver, "user");
  });

  test("a device of another kind with the bridge's name is left alone", async (t) => {
    execFileSync("ip", ["tuntap", "add", "hulltest0", "mode", "tap"]);
    await assert.rejects(
      open(await folder(t), { driver }),
      /another network device of that name/,
    );
  });

  test("a subnet with no address left refuses, and a detach makes room", async (t) => {
    const networks = await open(await folder(t), {
      driver,
      bridgeAddress: "10.78.0.1/29",
    });
    for (const digit of "abcde") {
      await networks.attach(container(digit), { network: "bridge" });
    }
    await assert.rejects(
      networks.attach(container("f"), { network: "bridge" }),
      /no available IPv4 addresses on this network's address pools: bridge/,
    );
    await networks.detach(container("b").id);
    const { ipAddress } = await networks.attach(container("f"), {
      network: "bridge",
    });
    assert.equal(ipAddress, "10.78.0.3");
  });

  test("networks of users: made, isolated, removed without a trace, kept over a restart", async (t) => {
    const directory = await folder(t);
    const events = new EventBus();
    const networks = await open(directory, { driver, events });
    // Of earlier tests.
    await networks.removeOrphans();
    const made = await networks.create({
      Name: "front",
      EnableIPv6: true,
      IPAM: { Driver: undefined, Options: undefined, Config: [config] },
    });
    assert.deepEqual(made.subnets[0], {
      subnet: "10.5.0.0/24",
      gateway: "10.5.0.1",
      ipRange: "10.5.0.64/26",
    });
    assert.match(made.subnets[1]?.subnet ?? "", /^fd.*\/64$/);
    const bridge = `br-${made.id.slice(0, 12)}`;
    const addresses = execFileSync(
      "ip",
      ["-brief", "address", "show", bridge],
      {
        encoding: "utf8",
      },
    );
    assert.match(addresses, /10\.5\.0\.1\/24 fd/);

    await assert.rejects(networks.create({ Name: "front" }), Conflict);
    await assert.rejects(
      networks.create({
        Name: "other",
        IPAM: { Driver: undefined, Options: undefined, Config: [config] },
      }),
      /Pool overlaps with other one/,
    );
    await networks.create({ Name: "back", Internal: true });

    const a = await networks.attach(container("a"), {
      network: "front",
      ipv4Address: "10.5.0.9",
      aliases: ["www"],
      macAddress: "02:00:00:00:00:09",
    });
    assert.equal(a.ipAddress, "10.5.0.9");
    assert.equal(a.macAddress, "02:00:00:00:00:09");
    assert.deepEqual(a.nameservers, ["10.5.0.1"]);
    await assert.rejects(
      networks.attach(container("b"), {
        network: "front",
        ipv4Address: "10.5.0.9",
      }),
      /Address already in use/,
    );
    const b = await networks.attach(container("b"), { network: "front" });
    assert.equal(b.ipAddress, "10.5.0.64");
    const inside = await networks.attach(container("b"), { network: "back" });
    assert.equal(inside.gateway, "");
    assert.deepEqual(inside.interface?.gateways, []);
    await assert.rejects(networks.remove("front"), {
      name: "Forbidden",
      message: /network front has active endpoints \(name:"ca" id:"/,
    });
    const guests = () =>
      execFileSync("nft", ["list", "table", "bridge", "hulltest0"], {
        encoding: "utf8",
      }).match(/chain guest-/g)?.length ?? 0;
    assert.equal(guests(), 3);
    await networks.close();
    execFileSync("nft", ["flush", "ruleset"]);
    execFileSync("ip", ["link", "del", bridge]);

    const again = await open(directory, { driver, events });
    await again.restore(container("a"), a, { network: "front" });
    await again.removeOrphans();
    assert.equal(guests(), 1);
    assert.equal(again.get("front").id, made.id);
    execFileSync("ip", ["link", "show", bridge]);
    await assert.rejects(
      again.attach(container("c"), {
        network: "front",
        ipv4Address: "10.5.0.9",
      }),
      /Address already in use/,
    );
    await again.detach(container("a").id);
    await again.remove("front");
    await again.remove(again.get("back").id);
    await again.close();
    const links = execFileSync("ip", ["link"], { encoding: "utf8" });
    const ownTaps = a.nic?.kind === "tap" ? a.nic.device.slice(0, 5) : "";
    assert.match(ownTaps, /^hl[0-9a-f]{3}$/);
    assert.doesNotMatch(links, new RegExp(`br-|${ownTaps}`));
    const rules = execFileSync("nft", ["list", "ruleset"], {
      encoding: "utf8",
    });
    assert.doesNotMatch(rules, /br-|guest-/);
    assert.deepEqual((await readdir(directory)).sort(), [
      "bridge.json",
      "none.json",
    ]);
    assert.deepEqual(
      events
        .history(0)
        .map(({ Action, Actor }) => `${Action} ${Actor.Attributes["name"]}`),
      [
        "create front",
        "create back",
        "connect front",
        "connect front",
        "connect back",
        "disconnect front",
        "destroy front",
        "destroy back",
      ],
    );
  });

  test("a guest's tap keeps its machine through disconnect, and is nobody's then", async (t) => {
    const networks = await open(await folder(t), { driver });
    await networks.create({ Name: "front" });
    const tap = await networks.createTap();
    assert.ok(tap);
    await networks.attach(container("a"), { network: "front", tap });
    await networks.disconnect(container("a").id, "front");
    assert.match(
      execFileSync("ip", ["link", "show", tap], { encoding: "utf8" }),
      /state DOWN/,
    );
    await assert.rejects(
      networks.disconnect(container("a").id, "front"),
      /is not connected to network front/,
    );
    await networks.attach(container("a"), { network: "front", tap });
    // It is on a network: whoever gives it back does not take it from there.
    networks.discardTap(tap);
    execFileSync("ip", ["link", "show", tap]);
    await networks.detach(container("a").id);
    await networks.remove("front");
    await networks.close();
    assert.throws(() =>
      execFileSync("ip", ["link", "show", tap], { stdio: "pipe" }),
    );
  });
}
