import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
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
import { busybox, environment } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

/** Subnets of this run: no other run on this host has them. */
const PART = 200 + (process.pid % 50);
const SUBNET = `10.${PART}.1.0/24`;
const WEB_IP = `10.${PART}.1.10`;
const WEB_MAC = "02:11:22:33:44:55";
const WEB_IP6 = `fd00:${PART}::10`;

const networks: string[] = [];
const containers: string[] = [];
const network = (prefix: string) => {
  const name = uniqueName(prefix);
  networks.push(name);
  return name;
};
const container = (prefix: string) => {
  const name = uniqueName(prefix);
  containers.push(name);
  return name;
};

interface NetworkInspect {
  Id: string;
  Name: string;
  Driver: string;
  Internal: boolean;
  EnableIPv6: boolean;
  IPAM: { Config: { Subnet: string; Gateway: string; IPRange?: string }[] };
  Containers: Record<string, { Name: string; IPv4Address: string }>;
  Options: Record<string, string>;
  Labels: Record<string, string>;
}
interface EndpointInspect {
  IPAMConfig: { IPv4Address?: string } | null;
  Aliases: string[] | null;
  MacAddress: string;
  NetworkID: string;
  Gateway: string;
  IPAddress: string;
  GlobalIPv6Address: string;
  GwPriority: number;
  DNSNames: string[] | null;
}

async function endpoints(name: string) {
  const { NetworkSettings } = await inspect<{
    NetworkSettings: { Networks: Record<string, EndpointInspect> };
  }>(name);
  return NetworkSettings.Networks;
}

function sh(name: string, command: string): Promise<string> {
  return dockerOk(["exec", name, "sh", "-c", command]);
}

/** Whether a page can be had from an address, asked for in a container. */
async function reaches(name: string, address: string): Promise<boolean> {
  const command = `timeout 3 wget -q -O - http://${address}/`;
  const { code, stdout } = await docker(["exec", name, "sh", "-c", command]);
  return code === 0 && stdout.includes("page");
}

/** Bridges and rules of this host that name a network. */
function traces(id: string): string {
  const links = execFileSync("ip", ["link"], { encoding: "utf8" });
  const rules = execFileSync("nft", ["list", "ruleset"], { encoding: "utf8" });
  return (links + rules)
    .split("\n")
    .filter((line) => line.includes(id.slice(0, 12)))
    .join("\n");
}

const WEB =
  "mkdir -p /w; echo page > /w/index.html; httpd -p 80 -h /w; sleep 10000";
const skip = !process.getuid || process.getuid() !== 0 ? "not root" : false;

const front = network("front");
const back = network("back");
const dark = network("dark");
const web = container("web");
const client = container("client");
const other = container("other");
const hidden = container("hidden");

describe("networks", { skip }, () => {
  before(async () => {
    await dockerOk([
      ...["network", "create", "--subnet", SUBNET],
      ...["--ip-range", `10.${PART}.1.128/25`, "--label", "tier=front"],
      ...["--ipv6", "--subnet", `fd00:${PART}::/64`, front],
    ]);
    await dockerOk(["network", "create", back]);
    await dockerOk(["network", "create", "--internal", dark]);
    await dockerOk([
      ...["run", "-d", "--name", web, "--network", front],
      ...["--ip", WEB_IP, "--ip6", WEB_IP6, "--mac-address", WEB_MAC],
      ...["--network-alias", "www", "--hostname", "host-of-web"],
      ...["--domainname", "example.test", "--add-host", "db:192.0.2.7"],
      ...["--add-host", "outside:host-gateway", "--dns-search", "example.test"],
      ...["--dns-option", "timeout:1", busybox(), "sh", "-c", WEB],
    ]);
    const sleeper = ["sleep", "10000"];
    await dockerOk([
      ...["run", "-d", "--privileged", "--name", client, "--network", front],
      ...[busybox(), ...sleeper],
    ]);
    await dockerOk([
      ...["run", "-d", "--name", other, "--network", back],
      ...[busybox(), "sh", "-c", WEB],
    ]);
    await dockerOk([
      ...["create", "--name", hidden, "--network", dark],
      ...["--network-alias", "lair", busybox(), "sh", "-c", WEB],
    ]);
    await dockerOk(["network", "connect", back, hidden]);
    await dockerOk(["start", hidden]);
  });
  after(async () => {
    await removeContainers(...containers);
    await docker(["network", "rm", "-f", ...networks]);
  });

  test("inspect shows what was asked for and who is on the network", async () => {
    const [info] = JSON.parse(
      await dockerOk(["network", "inspect", front]),
    ) as [NetworkInspect];
    assert.equal(info.Driver, "bridge");
    assert.equal(info.EnableIPv6, true);
    assert.deepEqual(info.Labels, { tier: "front" });
    assert.deepEqual(info.IPAM.Config, [
      {
        Subnet: SUBNET,
        IPRange: `10.${PART}.1.128/25`,
        Gateway: `10.${PART}.1.1`,
      },
      { Subnet: `fd00:${PART}::/64`, Gateway: `fd00:${PART}::1` },
    ]);
    const { Id } = await inspect(web);
    assert.equal(info.Containers[Id]?.Name, web);
    assert.equal(info.Containers[Id]?.IPv4Address, `${WEB_IP}/24`);

    const own = (await endpoints(web))[front];
    assert.equal(own?.IPAMConfig?.IPv4Address, WEB_IP);
    assert.equal(own?.IPAddress, WEB_IP);
    assert.equal(own?.GlobalIPv6Address, WEB_IP6);
    assert.equal(own?.MacAddress, WEB_MAC);
    assert.equal(own?.Gateway, `10.${PART}.1.1`);
    assert.equal(own?.NetworkID, info.Id);
    assert.deepEqual(own?.Aliases, ["www"]);
    const names = [web, "www", Id.slice(0, 12), "host-of-web"];
    assert.deepEqual(own?.DNSNames, names);
    // Chosen out of the range.
    const chosen = (await endpoints(client))[front]?.IPAddress ?? "";
    assert.ok(Number(chosen.split(".")[3]) >= 128, chosen);
    assert.equal(await sh(web, "cat /sys/class/net/eth0/address"), WEB_MAC);
    assert.match(await sh(web, "ip addr show eth0"), new RegExp(WEB_IP6));
  });

  test("names of the container and of others are in its files", async () => {
    const hosts = await sh(web, "cat /etc/hosts");
    assert.match(
      hosts,
      new RegExp(`^${WEB_IP}\thost-of-web.example.test host-of-web$`, "m"),
    );
    assert.match(hosts, /^192\.0\.2\.7\tdb$/m);
    assert.match(hosts, new RegExp(`^10\\.${PART}\\.1\\.1\toutside$`, "m"));
    assert.equal(
      await sh(web, "cat /etc/resolv.conf"),
      `nameserver 10.${PART}.1.1\nsearch example.test\noptions timeout:1 ndots:0`,
    );
    assert.equal(await sh(web, "hostname"), "host-of-web");
  });

  test("ls and its filters, by ID and name, and a second network of a name", async () => {
    const list = async (...filters: string[]) =>
      (
        await dockerOk([
          ...["network", "ls", "--format", "{{.Name}}"],
          ...filters.flatMap((filter) => ["--filter", filter]),
        ])
      )
        .split("\n")
        .filter((name) => [front, back, dark, "bridge"].includes(name))
        .sort();
    assert.deepEqual(await list("type=custom"), [back, dark, front].sort());
    assert.deepEqual(await list("type=builtin"), ["bridge"]);
    assert.deepEqual(await list("label=tier=front"), [front]);
    assert.deepEqual(await list(`name=${front}`), [front]);
    assert.deepEqual(await list("dangling=true", "driver=bridge"), []);
    const twice = await docker(["network", "create", front]);
    assert.equal(twice.code, 1);
    assert.match(
      twice.stderr,
      new RegExp(`network with name ${front} already exists`),
    );
  });

  test("what cannot be is refused in Docker's words, and makes nothing", async () => {
    const config = (IPAM: object, more = {}) => ({
      Name: "refused",
      IPAM: { Config: [IPAM] },
      ...more,
    });
    const free = `10.${PART}.9.0/24`;
    const cases: [object, number, RegExp][] = [
      [{ Name: "" }, 400, /name is empty/],
      [{ Name: "bridge" }, 403, /operation is not permitted on predefined/],
      [{ Name: "refused", Driver: "nosuch" }, 404, /plugin "nosuch" not found/],
      [{ Name: "refused", Driver: "macvlan" }, 501, /macvlan/],
      [{ Name: "refused", Driver: "host" }, 403, /only one instance of "host"/],
      [
        config({ Subnet: SUBNET }),
        403,
        /invalid pool request: Pool overlaps with other one on this address space/,
      ],
      [config({ Subnet: `10.${PART}.0.0/16` }), 403, /Pool overlaps/],
      [
        config({ Subnet: "10.0.0.0/33" }),
        400,
        /invalid subnet 10\.0\.0\.0\/33: invalid CIDR block notation/,
      ],
      [
        config({ Subnet: `10.${PART}.9.7/24` }),
        400,
        /it should be 10\.\d+\.9\.0\/24/,
      ],
      [
        config({ Subnet: free, Gateway: "10.0.0.1" }),
        400,
        /invalid gateway 10\.0\.0\.1: parent subnet .* doesn't contain this address/,
      ],
      [
        config({ Subnet: free, IPRange: `10.${PART}.8.0/25` }),
        400,
        /invalid ip-range .* doesn't contain ip-range/,
      ],
      [
        config({ Subnet: free, AuxiliaryAddresses: { printer: "::1" } }),
        400,
        /invalid auxiliary address printer: parent subnet is an IPv4 block/,
      ],
      [
        {
          Name: "refused",
          Options: { "com.docker.network.bridge.name": "../x" },
        },
        400,
        /invalid bridge name/,
      ],
      [
        { Name: "refused", Options: { "com.docker.network.driver.mtu": "9" } },
        400,
        /com\.docker\.network\.driver\.mtu/,
      ],
      [
        {
          Name: "refused",
          Options: { "com.docker.network.bridge.name": "lo" },
        },
        503,
        /there is another network device of that name/,
      ],
    ];
    for (const [body, status, message] of cases) {
      const answer = await api("POST", "/networks/create", body);
      assert.equal(
        answer.status,
        status,
        `${JSON.stringify(body)}: ${answer.text}`,
      );
      assert.match(messageOf(answer), message);
    }
    assert.equal((await api("GET", "/networks/refused")).status, 404);
    const remove = (name: string) => api("DELETE", `/networks/${name}`);
    assert.equal((await remove("bridge")).status, 403);
    const used = await remove(front);
    assert.equal(used.status, 403);
    assert.match(
      messageOf(used),
      new RegExp(
        `error while removing network: network ${front} has active endpoints \\(name:"`,
      ),
    );
    assert.equal((await remove("no-such-network")).status, 404);
  });

  test("impossible addresses of a container are refused when it is made", async () => {
    const refused = async (args: string[], message: RegExp) => {
      const { code, stderr } = await docker([
        ...["create", "--name", "refused", ...args],
        busybox(),
      ]);
      assert.notEqual(code, 0);
      assert.match(stderr, message);
    };
    const on = ["--network", front];
    await refused(
      [...on, "--ip", "10.0.0.1"],
      new RegExp(
        `invalid config for network ${front}: invalid endpoint settings:\\s+no configured subnet contains IP address 10\\.0\\.0\\.1`,
      ),
    );
    await refused(
      ["--network", back, "--ip", "172.18.0.9"],
      /user specified IP address is supported only when connecting to networks with user configured subnets/,
    );
    await refused(
      ["--network", "bridge", "--ip", "172.17.0.9"],
      /user specified IP address is supported on user defined networks only/,
    );
    await refused(
      [
        ...on,
        ...[back, dark, "n4", "n5", "n6"].flatMap((n) => ["--network", n]),
      ],
      /a container can be on \d networks at most/,
    );
    // An address that somebody has shows when the container starts.
    const late = container("late");
    await dockerOk([
      ...["create", "--name", late, ...on, "--ip", WEB_IP, busybox(), "true"],
    ]);
    const started = await docker(["start", late]);
    assert.equal(started.code, 1);
    assert.match(started.stderr, /Address already in use/);
    assert.equal(await reaches(client, WEB_IP), true);
  });

  test("a network reaches its own, and no other one", async () => {
    assert.equal(await reaches(client, WEB_IP), true);
    assert.equal(await reaches(client, `[${WEB_IP6}]`), true);
    const there = await endpoints(other);
    assert.equal(await reaches(client, there[back]?.IPAddress ?? ""), false);
    // An internal network has no way out, and there is none into it.
    const both = await endpoints(hidden);
    assert.equal(both[dark]?.Gateway, "");
    assert.equal(await reaches(client, both[dark]?.IPAddress ?? ""), false);
    assert.equal(await reaches(other, both[back]?.IPAddress ?? ""), true);
    assert.match(
      await sh(hidden, "ip route"),
      new RegExp(`^default via ${both[back]?.Gateway} `, "m"),
    );
  });

  test("a running container is connected and disconnected; another network keeps it", async () => {
    const since = Math.floor(Date.now() / 1000);
    const target = (await endpoints(other))[back]?.IPAddress ?? "";
    await dockerOk([
      ...["network", "connect", "--alias", "guest", back, client],
    ]);
    assert.equal(await reaches(client, target), true);
    assert.equal(await reaches(client, WEB_IP), true);
    const info = (await endpoints(client))[back];
    assert.deepEqual(info?.Aliases, ["guest"]);
    assert.match(
      await sh(client, "cat /etc/hosts"),
      new RegExp(`${info?.IPAddress}\t`),
    );
    assert.match(
      await sh(other, "nslookup guest"),
      new RegExp(`${info?.IPAddress}`),
    );

    const again = await docker(["network", "connect", back, client]);
    assert.equal(again.code, 1);
    assert.match(
      again.stderr,
      new RegExp(
        `endpoint with name ${client} already exists in network ${back}`,
      ),
    );
    await dockerOk(["network", "disconnect", back, client]);
    assert.equal(await reaches(client, target), false);
    assert.equal(await reaches(client, WEB_IP), true);
    assert.deepEqual(Object.keys(await endpoints(client)), [front]);
    const absent = await docker(["network", "disconnect", back, client]);
    assert.match(absent.stderr, /is not connected to network/);

    const events = await dockerOk([
      ...["events", "--since", String(since), "--until", "0s"],
      ...["--filter", "type=network", "--filter", `network=${back}`],
      ...["--format", "{{.Action}} {{.Actor.Attributes.type}}"],
    ]);
    assert.deepEqual(events.split("\n"), [
      "connect bridge",
      "disconnect bridge",
    ]);
  });

  test("there is a limit, which is named", async () => {
    const more = ["m1", "m2", "m3", "m4"].map(network);
    for (const name of more) await dockerOk(["network", "create", name]);
    let refusal = "";
    for (const name of more) {
      const { code, stderr } = await docker([
        "network",
        "connect",
        name,
        client,
      ]);
      if (code !== 0) {
        refusal = stderr;
        break;
      }
    }
    assert.match(refusal, /networks at most/);
    for (const name of Object.keys(await endpoints(client))) {
      if (name !== front) {
        await dockerOk(["network", "disconnect", name, client]);
      }
    }
    assert.equal(await reaches(client, WEB_IP), true);
    const pruned = await dockerOk(["network", "prune", "-f"]);
    for (const name of more) assert.match(pruned, new RegExp(name));
    assert.equal((await api("GET", `/networks/${front}`)).status, 200);
  });

  test("removal leaves nothing, and create makes it anew", async () => {
    const name = network("short");
    const id = await dockerOk(["network", "create", name]);
    assert.notEqual(traces(id), "");
    assert.equal(await dockerOk(["network", "rm", name]), name);
    assert.equal(traces(id), "");
    assert.notEqual(await dockerOk(["network", "create", name]), id);
  });

  test("networks, rules and names are there after a restart of the daemon, and of the host", async () => {
    const name = network("lasting");
    const id = await dockerOk(["network", "create", name]);
    await Daemon.shared().stop("SIGKILL");
    // What a reboot takes: a bridge without containers, and the rules.
    execFileSync("ip", ["link", "del", `br-${id.slice(0, 12)}`]);
    await Daemon.shared().start();
    assert.equal(await reaches(client, WEB_IP), true);
    assert.match(await sh(client, "nslookup www"), new RegExp(WEB_IP));
    assert.notEqual(traces(id), "");
    await dockerOk(["network", "connect", name, client]);
    const own = (await endpoints(client))[name];
    assert.equal(
      await sh(client, `ping -c 1 -W 3 ${own?.Gateway} > /dev/null && echo ok`),
      "ok",
    );
    await dockerOk(["network", "disconnect", name, client]);
  });
});

/** An address's MAC as a container has found it, afresh. */
async function neighbour(name: string, address: string): Promise<string> {
  await sh(name, "ip neigh flush dev eth0");
  await sh(name, `ping -c 1 -W 3 ${address} > /dev/null`);
  const line = await sh(name, `ip neigh show ${address}`);
  return /lladdr (\S+)/.exec(line)?.[1] ?? line;
}

describe("a guest that claims to be another", { skip }, () => {
  const net = network("spoof");
  const victim = container("victim");
  const peer = container("peer");
  const attacker = container("attacker");
  const plainVictim = container("plain-victim");
  const plainAttacker = container("plain-attacker");
  let address = { v4: "", v6: "", mac: "" };
  let gateway = "";
  let bridgeMac = "";
  before(async () => {
    await dockerOk(["network", "create", "--ipv6", net]);
    for (const name of [victim, peer, attacker]) {
      await dockerOk([
        ...["run", "-d", "--privileged", "--name", name, "--network", net],
        ...[busybox(), "sh", "-c", WEB],
      ]);
    }
    const own = (await endpoints(victim))[net];
    assert.ok(own);
    address = {
      v4: own.IPAddress,
      v6: own.GlobalIPv6Address,
      mac: own.MacAddress,
    };
    gateway = own.Gateway;
    bridgeMac = await neighbour(peer, gateway);
  });
  after(async () => {
    await removeContainers(...containers);
    await docker(["network", "rm", "-f", net]);
  });

  /** How many of three pings from one container, sent with an address, another one hears at its own. */
  async function pings(
    from: string,
    source: string,
    to: string,
    target: string,
  ): Promise<number> {
    // InEchos of RFC 2011 and RFC 4293.
    const count = target.includes(":")
      ? "awk '/^Icmp6InEchos/ { print $2 }' /proc/net/snmp6"
      : "awk '/^Icmp: [0-9]/ { print $10 }' /proc/net/snmp";
    const before = Number(await sh(to, count));
    await docker([
      ...["exec", from, "ping", "-c", "3", "-i", "0.1", "-W", "1"],
      ...["-I", source, target],
    ]);
    return Number(await sh(to, count)) - before;
  }
  const heard = async (source: string) => {
    const own = (await endpoints(peer))[net];
    const target = source.includes(":")
      ? own?.GlobalIPv6Address
      : own?.IPAddress;
    return pings(attacker, source, peer, target ?? "");
  };

  test("as itself it reaches everybody", async () => {
    const own = (await endpoints(attacker))[net]?.IPAddress ?? "";
    assert.equal(await reaches(attacker, address.v4), true);
    assert.equal(await heard(own), 3);
    const own6 = (await endpoints(attacker))[net]?.GlobalIPv6Address ?? "";
    assert.equal(await heard(own6), 3);
  });

  test("with another's IP address: neither its packets nor its ARP are heard", async () => {
    await sh(attacker, `ip addr add ${address.v4}/16 dev eth0`);
    await docker([
      "exec",
      attacker,
      "arping",
      "-U",
      "-c",
      "1",
      "-I",
      "eth0",
      address.v4,
    ]);
    await docker([
      "exec",
      attacker,
      "arping",
      "-A",
      "-c",
      "2",
      "-I",
      "eth0",
      address.v4,
    ]);
    assert.equal(await heard(address.v4), 0);
    assert.equal(await neighbour(peer, address.v4), address.mac);
    assert.equal(await reaches(peer, address.v4), true);
    await sh(attacker, `ip addr del ${address.v4}/16 dev eth0`);
  });

  test("with the gateway's address it gets nobody's traffic", async () => {
    await sh(attacker, `ip addr add ${gateway}/16 dev eth0`);
    await docker([
      "exec",
      attacker,
      "arping",
      "-U",
      "-c",
      "1",
      "-I",
      "eth0",
      gateway,
    ]);
    assert.equal(await heard(gateway), 0);
    assert.equal(await neighbour(peer, gateway), bridgeMac);
    assert.match(await sh(peer, `nslookup ${victim}`), new RegExp(address.v4));
    await sh(attacker, `ip addr del ${gateway}/16 dev eth0`);
  });

  test("with another's IPv6 address: neighbour discovery finds the owner", async () => {
    // It does not care whether somebody has the address already.
    await sh(
      attacker,
      `echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; ip addr add ${address.v6}/64 dev eth0`,
    );
    assert.equal(await neighbour(peer, address.v6), address.mac);
    assert.equal(await heard(address.v6), 0);
    await sh(attacker, `ip addr del ${address.v6}/64 dev eth0`);
  });

  test("with another's MAC address it reaches nobody, and the owner is reached", async () => {
    const own = (await endpoints(attacker))[net]?.MacAddress ?? "";
    await sh(
      attacker,
      `ip link set eth0 down; ip link set eth0 address ${address.mac}; ip link set eth0 up; ip route add default via ${gateway} || true`,
    );
    assert.equal(await reaches(attacker, address.v4), false);
    const ping = await docker([
      "exec",
      attacker,
      "ping",
      "-c",
      "2",
      "-W",
      "1",
      gateway,
    ]);
    assert.notEqual(ping.code, 0);
    assert.equal(await reaches(peer, address.v4), true);
    await sh(
      attacker,
      `ip link set eth0 down; ip link set eth0 address ${own}; ip link set eth0 up`,
    );
    assert.equal(await reaches(attacker, address.v4), true);
  });

  test("on the default network, too", async () => {
    for (const name of [plainVictim, plainAttacker]) {
      await dockerOk([
        ...["run", "-d", "--privileged", "--name", name],
        ...[busybox(), "sh", "-c", WEB],
      ]);
    }
    const own = (await endpoints(plainVictim))["bridge"];
    assert.ok(own);
    assert.equal(await reaches(plainAttacker, own.IPAddress), true);
    await sh(plainAttacker, `ip addr add ${own.Gateway}/16 dev eth0`);
    const forged = await pings(
      plainAttacker,
      own.Gateway,
      plainVictim,
      own.IPAddress,
    );
    assert.equal(forged, 0);
    await docker([
      ...["exec", plainAttacker, "arping", "-U", "-c", "1"],
      ...["-I", "eth0", own.Gateway],
    ]);
    const mac = await neighbour(plainVictim, own.Gateway);
    const attackerMac = (await endpoints(plainAttacker))["bridge"]?.MacAddress;
    assert.notEqual(mac, attackerMac);
    assert.match(mac, /^02:42:/);
  });

  test("and a restarted daemon goes on to refuse", async () => {
    await Daemon.shared().stop("SIGKILL");
    await Daemon.shared().start();
    await sh(attacker, `ip addr add ${address.v4}/16 dev eth0`);
    assert.equal(await heard(address.v4), 0);
    await eventually(async () =>
      assert.equal(await neighbour(peer, address.v4), address.mac),
    );
  });
});

test("root is what these tests need", { skip: skip === false }, () => {
  assert.equal(environment().root, false);
});
