import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import http from "node:http";
import net, { type AddressInfo } from "node:net";
import { networkInterfaces } from "node:os";
import { before, describe, test } from "node:test";
import { api, messageOf } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import {
  docker,
  dockerOk,
  inspect,
  ownContainers,
  removeContainers,
} from "./harness/docker.js";
import { busybox, environment, imageRef } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

interface WithPorts {
  Id: string;
  State: { Status: string; Error: string; ExitCode: number };
  NetworkSettings: {
    Ports: Record<string, { HostIp: string; HostPort: string }[] | null>;
    Networks: Record<string, { IPAddress: string; Gateway: string }>;
  };
}

/** Web servers on 80, 81, 90 and 91 that say their port; an echo server on 7. */
const SERVERS =
  "for p in 80 81 90 91; do mkdir -p /www/$p; echo port $p >/www/$p/index.html; httpd -p $p -h /www/$p; done; " +
  "exec nc -ll -p 7 -e cat";

const { named } = ownContainers();

/** A TCP port nobody has, outside of the range from which the kernel and the daemon choose. */
let nextPort = 20_000 + (process.pid % 5_000);
async function freePort(): Promise<number> {
  for (;;) {
    const port = nextPort++;
    const server = net.createServer();
    server.listen(port, "0.0.0.0");
    const free = await Promise.race([
      once(server, "listening").then(() => true),
      once(server, "error").then(() => false),
    ]).catch(() => false);
    server.close();
    if (free) return port;
  }
}

function get(port: number, host = "127.0.0.1"): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.get(
      { host, port, agent: false, path: "/" },
      (response) => {
        let text = "";
        response.on("data", (chunk: Buffer) => (text += chunk.toString()));
        response.on("end", () => resolve(text.trim()));
        response.on("error", reject);
      },
    );
    request.setTimeout(5_000, () => request.destroy(new Error("no answer")));
    request.on("error", reject);
  });
}

/** The first answer may take a moment: the servers start when the container does. */
const gets = (port: number, answer: string, host?: string) =>
  eventually(async () => assert.equal(await get(port, host), answer));

const refused = (port: number, host = "127.0.0.1") =>
  assert.rejects(get(port, host), { code: "ECONNREFUSED" });

/** The address of the host's first real device. */
function hostAddress(): string {
  const found = Object.entries(networkInterfaces())
    .filter(([name]) => !/^(lo|hct|docker|br-|veth)/.test(name))
    .flatMap(([, addresses]) => addresses ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal);
  if (!found) throw new Error("this host has no address");
  return found.address;
}

/** The rules that forward to containers. */
function rules(): string[] {
  const text = execFileSync("nft", ["list", "ruleset"], { encoding: "utf8" });
  return text.match(/^.* dnat to .*$/gm) ?? [];
}

const skip = environment().root ? false : "needs root";

describe("published ports", { skip }, () => {
  const web = named("web");
  let port: number;
  let range: number;
  let chosen: number;
  before(async () => {
    port = await freePort();
    nextPort += 2;
    range = await freePort();
    nextPort += 1;
    await dockerOk([
      ...["run", "-d", "--name", web],
      ...["-p", `${port}:80`, "-p", "127.0.0.1::81"],
      ...["-p", `${range}-${range + 1}:90-91`, "-p", `${port + 1}:7`],
      ...[busybox(), "sh", "-c", SERVERS],
    ]);
  });

  test("answer on the loopback and on other addresses of the host", async () => {
    await gets(port, "port 80");
    await gets(port, "port 80", "localhost");
    await gets(port, "port 80", hostAddress());
    await gets(range, "port 90");
    await gets(range + 1, "port 91");
  });

  test("are in docker port, inspect and the list", async () => {
    const { NetworkSettings } = await inspect<WithPorts>(web);
    const [local] = NetworkSettings.Ports["81/tcp"] ?? [];
    assert.equal(local?.HostIp, "127.0.0.1");
    chosen = Number(local.HostPort);
    assert.ok(chosen >= 1024, String(chosen));
    assert.deepEqual(NetworkSettings.Ports["80/tcp"]?.[0], {
      HostIp: "0.0.0.0",
      HostPort: String(port),
    });
    const ports = (await dockerOk(["port", web])).split("\n");
    assert.ok(ports.includes(`80/tcp -> 0.0.0.0:${port}`), ports.join());
    assert.ok(ports.includes(`81/tcp -> 127.0.0.1:${chosen}`), ports.join());
    assert.equal(
      (await dockerOk(["port", web, "91"])).split("\n")[0],
      `0.0.0.0:${range + 1}`,
    );
    const listed = await dockerOk([
      ...["ps", "--format", "{{.Ports}}"],
      ...["--filter", `publish=${port}`],
    ]);
    assert.match(
      listed,
      new RegExp(
        `0\\.0\\.0\\.0:${port}->80/tcp.*127\\.0\\.0\\.1:${chosen}->81/tcp`,
      ),
    );
    const other = await docker(["port", web, "1234"]);
    assert.equal(other.code, 1);
    assert.match(
      other.stderr,
      /[Nn]o public port '1234(\/tcp)?' published for/,
    );
  });

  test(
    "answer on IPv6, too, though the container has none",
    {
      skip: noIPv6(),
    },
    async () => {
      await gets(port, "port 80", "::1");
      const { NetworkSettings } = await inspect<WithPorts>(web);
      assert.deepEqual(NetworkSettings.Ports["80/tcp"], [
        { HostIp: "0.0.0.0", HostPort: String(port) },
        { HostIp: "::", HostPort: String(port) },
      ]);
      assert.match(
        await dockerOk(["port", web, "80"]),
        new RegExp(`^0\\.0\\.0\\.0:${port}\n\\[::\\]:${port}$`),
      );
      // Both ends say when they are done, each on its own.
      const socket = net.connect({ host: "::1", port: port + 1 });
      let echoed = "";
      socket.on("data", (chunk: Buffer) => (echoed += chunk.toString()));
      socket.end("x".repeat(200_000));
      await once(socket, "close");
      assert.equal(echoed.length, 200_000);
    },
  );

  test("of one address answer there only", async () => {
    await gets(chosen, "port 81");
    await refused(chosen, hostAddress());
  });

  test("answer to containers by way of the host's addresses", async () => {
    const { NetworkSettings } = await inspect<WithPorts>(web);
    const { Gateway = "" } = NetworkSettings.Networks["bridge"] ?? {};
    assert.equal(
      await dockerOk([
        ...["run", "--rm", busybox(), "sh", "-c"],
        `wget -qO- http://${hostAddress()}:${port} && wget -qO- http://${Gateway}:${port}`,
      ]),
      "port 80\nport 80",
    );
  });

  test("answer to their own container by way of the host's address", async () => {
    assert.equal(
      await dockerOk([
        ...["exec", web, "wget", "-qO-"],
        `http://${hostAddress()}:${port}`,
      ]),
      "port 80",
    );
  });

  test("answer to other hosts, with their address kept", async () => {
    const space = `hct-${process.pid}`;
    const ip = (...args: string[]) => execFileSync("ip", args);
    ip("netns", "add", space);
    try {
      ip(
        "link",
        "add",
        "hctveth",
        "type",
        "veth",
        "peer",
        "eth0",
        "netns",
        space,
      );
      ip("address", "add", "198.19.7.1/24", "dev", "hctveth");
      ip("link", "set", "hctveth", "up");
      ip("-n", space, "address", "add", "198.19.7.2/24", "dev", "eth0");
      ip("-n", space, "link", "set", "eth0", "up");
      const fetched = execFileSync(
        "ip",
        [
          ...["netns", "exec", space, "busybox", "wget", "-qO-"],
          `http://198.19.7.1:${port}`,
        ],
        { encoding: "utf8" },
      );
      assert.equal(fetched, "port 80\n");
      // A connection held open, so that the container can be asked who it is from.
      const peers = dockerOk([
        ...["exec", web, "sh", "-c"],
        "for i in 1 2 3 4 5 6 7 8; do netstat -tn | grep ':7 .*ESTAB' && break; sleep 1; done",
      ]);
      execFileSync("ip", [
        ...["netns", "exec", space, "sh", "-c"],
        `sleep 5 | busybox nc -w 5 198.19.7.1 ${port + 1}`,
      ]);
      assert.match(await peers, /198\.19\.7\.2:/);
    } finally {
      ip("netns", "del", space);
      execFileSync("sh", ["-c", "ip link del hctveth 2>/dev/null || true"]);
    }
  });

  test("are refused to a second container, which leaves nothing half-made", async () => {
    const second = named("second");
    const other = await freePort();
    const before = rules();
    const { code, stderr } = await docker([
      ...["run", "-d", "--name", second],
      ...["-p", `${other}:81`, "-p", `${port}:80`, busybox(), "sleep", "60"],
    ]);
    assert.equal(code, 125);
    const { Id, State, NetworkSettings } = await inspect<WithPorts>(second);
    assert.match(
      stderr,
      new RegExp(
        `driver failed programming external connectivity on endpoint ${second} \\([0-9a-f]{64}\\): Bind for 0\\.0\\.0\\.0:${port} failed: port is already allocated`,
      ),
    );
    assert.equal(State.Status, "created");
    assert.equal(State.ExitCode, 128);
    assert.match(State.Error, /port is already allocated/);
    assert.deepEqual(NetworkSettings.Ports, {});
    assert.deepEqual(rules(), before);
    await refused(other);
    assert.ok(
      !Daemon.shared()
        .machines()
        .some((pid) => hasId(pid, Id)),
    );
    // Also where one of the two is an address of its own.
    const local = await docker([
      ...["run", "--rm", "-p", `127.0.0.1:${port}:80`, busybox(), "true"],
    ]);
    assert.equal(local.code, 125);
    assert.match(local.stderr, /Bind for 127\.0\.0\.1:\d+ failed/);
    // The same port of another protocol is another port.
    await dockerOk(["run", "--rm", "-p", `${port}:80/udp`, busybox(), "true"]);
  });

  test("that a process of the host has are refused, too", async () => {
    const taken = await freePort();
    const server = net.createServer().listen(taken, "127.0.0.1");
    await once(server, "listening");
    try {
      const { code, stderr } = await docker([
        ...["run", "--rm", "-p", `${taken}:80`, busybox(), "true"],
      ]);
      assert.equal(code, 125);
      assert.match(
        stderr,
        new RegExp(
          `driver failed programming external connectivity on endpoint .*: failed to bind host port 0\\.0\\.0\\.0:${taken}/tcp: address already in use`,
        ),
      );
      // Out of a range the next one is taken.
      const ranged = named("range");
      await dockerOk([
        ...["run", "-d", "--name", ranged],
        ...["-p", `${taken}-${taken + 3}:80`, busybox(), "sleep", "60"],
      ]);
      assert.match(
        await dockerOk(["port", ranged, "80"]),
        new RegExp(`^0\\.0\\.0\\.0:${taken + 1}$`, "m"),
      );
      await dockerOk(["rm", "-f", ranged]);
    } finally {
      server.close();
    }
  });

  test("cannot be taken by processes of the host while the daemon runs", async () => {
    const server = net.createServer().listen(port, "0.0.0.0");
    const [error] = (await once(server, "error")) as [NodeJS.ErrnoException];
    assert.equal(error.code, "EADDRINUSE");
  });

  test("and connections to them outlive the daemon", async () => {
    const socket = net.connect(port + 1, "127.0.0.1");
    await once(socket, "connect");
    const echo = async (text: string) => {
      socket.write(text);
      const [answer] = (await once(socket, "data")) as [Buffer];
      assert.equal(answer.toString(), text);
    };
    await echo("before");
    const daemon = Daemon.shared();
    const before = rules();
    await daemon.stop("SIGKILL");
    await echo("without");
    assert.equal(await get(port), "port 80");
    assert.equal(await get(port, hostAddress()), "port 80");
    await daemon.start();
    await echo("after");
    assert.equal(await get(port), "port 80");
    socket.destroy();
    assert.deepEqual(rules(), before);
    assert.match(
      await dockerOk(["port", web, "80"]),
      new RegExp(`^0\\.0\\.0\\.0:${port}$`, "m"),
    );
    // Of IPv6 the daemon forwards itself, and does so again.
    if (!noIPv6()) await gets(port, "port 80", "::1");
    const taken = await docker([
      ...["run", "--rm", "-p", `${port}:80`, busybox(), "true"],
    ]);
    assert.match(taken.stderr, /port is already allocated/);
  });

  test("go with a stop, come back with a start, and are free in between", async () => {
    const clients = ["127.0.0.1", hostAddress(), ...(noIPv6() ? [] : ["::1"])];
    const told = await Promise.all(
      clients.map(async (host) => {
        const socket = net.connect({ host, port: port + 1 });
        socket.write("there?");
        await once(socket, "data");
        // A reset is an answer, too.
        socket.on("error", () => undefined);
        return {
          closed: new Promise((resolve) => socket.on("close", resolve)),
        };
      }),
    );
    await dockerOk(["stop", "-t", "0", web]);
    // Nobody waits for an answer that cannot come.
    await Promise.all(told.map(({ closed }) => closed));
    await refused(port);
    const { NetworkSettings } = await inspect<WithPorts>(web);
    assert.deepEqual(NetworkSettings.Ports, {});
    assert.equal(await dockerOk(["port", web]), "");
    await dockerOk(["run", "--rm", "-p", `${port}:80`, busybox(), "true"]);
    await dockerOk(["start", web]);
    await gets(port, "port 80");
    await dockerOk(["rm", "-f", web]);
    await refused(port);
    assert.ok(!rules().some((rule) => rule.includes(`dport ${port} `)));
  });
});

describe("more published ports", { skip }, () => {
  test("-P publishes what the image exposes, at ports of the host's range", async () => {
    const name = named("all");
    await dockerOk([
      ...["run", "-d", "-P", "--name", name, "--expose", "53/udp"],
      ...["--entrypoint", "sleep", imageRef("configured"), "60"],
    ]);
    const { NetworkSettings } = await inspect<WithPorts>(name);
    assert.deepEqual(Object.keys(NetworkSettings.Ports), [
      "53/udp",
      "8080/tcp",
    ]);
    for (const bindings of Object.values(NetworkSettings.Ports)) {
      const chosen = Number(bindings?.[0]?.HostPort);
      assert.equal(bindings?.[0]?.HostIp, "0.0.0.0");
      assert.ok(chosen >= 1024 && chosen <= 65535, String(chosen));
    }
    await dockerOk(["rm", "-f", name]);
  });

  test("what is exposed and not published is shown without a port of the host", async () => {
    const name = named("exposed");
    await dockerOk([
      ...["run", "-d", "--name", name, "--expose", "90", busybox()],
      ...["sleep", "60"],
    ]);
    const { NetworkSettings } = await inspect<WithPorts>(name);
    assert.deepEqual(NetworkSettings.Ports, { "90/tcp": null });
    assert.equal(
      await dockerOk(["ps", "--filter", "expose=90", "--format", "{{.Ports}}"]),
      "90/tcp",
    );
    await dockerOk(["rm", "-f", name]);
  });

  test("UDP, both ways", async () => {
    const name = named("udp");
    const port = await freePort();
    const echo = (answer: string) => [
      ...["run", "-d", "--name", name, "-p", `${port}:53/udp`],
      ...[imageRef("debian"), "perl", "-MIO::Socket::INET", "-e"],
      `$s=IO::Socket::INET->new(LocalPort=>53,Proto=>"udp") or die; while(defined $s->recv($b,1500)){$s->send("${answer} $b")}`,
    ];
    await dockerOk(echo("echo"));
    const hosts = ["127.0.0.1", hostAddress(), ...(noIPv6() ? [] : ["::1"])];
    for (const host of hosts) {
      const answer = await eventually(() => askUdp(host, port));
      assert.equal(answer, "echo hello");
    }
    assert.equal(
      (await dockerOk(["port", name])).split("\n")[0],
      `53/udp -> 0.0.0.0:${port}`,
    );
    // A client that never stops asking, from one port, reaches whoever has the port.
    const client = createSocket("udp4");
    let last = "";
    client.on("message", (message) => (last = message.toString()));
    // While nobody has the port the host says so.
    client.on("error", () => undefined);
    const asking = setInterval(
      () => client.send("you", port, hostAddress()),
      200,
    );
    try {
      await eventually(() => assert.equal(last, "echo you"));
      await dockerOk(["rm", "-f", name]);
      // Another address than before.
      const other = named("other");
      await dockerOk(["run", "-d", "--name", other, busybox(), "sleep", "600"]);
      await dockerOk(echo("again"));
      await eventually(() => assert.equal(last, "again you"));
      await dockerOk(["rm", "-f", other]);
    } finally {
      clearInterval(asking);
      client.close();
    }
    await dockerOk(["rm", "-f", name]);
  });

  test(
    "of IPv6 addresses, and of containers that have one",
    {
      skip: noIPv6(),
    },
    async () => {
      const network = named("six");
      const name = named("six");
      const port = await freePort();
      nextPort++;
      await dockerOk(["network", "create", "--ipv6", network]);
      try {
        await dockerOk([
          ...["run", "-d", "--name", name, "--network", network],
          ...["-p", `[::1]:${port}:80`, "-p", `${port + 1}:81`],
          ...[busybox(), "sh", "-c", SERVERS],
        ]);
        await gets(port, "port 80", "::1");
        await refused(port);
        await gets(port + 1, "port 81", "::1");
        await gets(port + 1, "port 81");
        assert.equal(
          await dockerOk(["port", name]),
          [
            `80/tcp -> [::1]:${port}`,
            `81/tcp -> 0.0.0.0:${port + 1}`,
            `81/tcp -> [::]:${port + 1}`,
          ].join("\n"),
        );
        assert.ok(
          rules().some((rule) =>
            /tcp dport \d+ dnat to \[[0-9a-f:]+\]:81/.test(rule),
          ),
        );
        const { NetworkSettings } = await inspect<
          WithPorts & {
            NetworkSettings: {
              Networks: Record<string, { IPv6Gateway: string }>;
            };
          }
        >(name);
        const gateway = NetworkSettings.Networks[network]?.IPv6Gateway ?? "";
        assert.match(gateway, /^fd/);
        await gets(port + 1, "port 81", gateway);
        // The container itself, too.
        assert.equal(
          await dockerOk([
            ...["exec", name, "wget", "-qO-"],
            `http://[${gateway}]:${port + 1}`,
          ]),
          "port 81",
        );
        await dockerOk(["rm", "-f", name]);
        await refused(port, "::1");
        await refused(port + 1, "::1");
      } finally {
        await removeContainers(name);
        await dockerOk(["network", "rm", network]);
      }
    },
  );

  test("a guest does not reach the host's loopback", async () => {
    let reached = 0;
    const server = net.createServer((socket) => {
      reached++;
      socket.end("reached\n");
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    try {
      // A guest that is its own master: 127.0.0.1 goes out by the gateway.
      const { stdout } = await docker([
        ...["run", "--rm", "--privileged", busybox(), "sh", "-c"],
        "sysctl -qw net.ipv4.conf.all.route_localnet=1; ip addr flush dev lo; ip route flush table local dev lo; " +
          'gw=$(ip route | sed -n "s/default via \\([^ ]*\\).*/\\1/p"); ip route add 127.0.0.1 via $gw && ' +
          `(echo | nc -w 3 127.0.0.1 ${port}; echo tried)`,
      ]);
      assert.equal(stdout, "tried\n");
      assert.equal(reached, 0);
    } finally {
      server.close();
    }
  });
});

describe("impossible ports", () => {
  const body = (host: object, more: object = {}) => ({
    Image: busybox(),
    Cmd: ["true"],
    ...more,
    HostConfig: host,
  });
  const cases: [string, object, object, RegExp][] = [
    [
      "a port above 65535",
      { PortBindings: { "70000/tcp": [{ HostPort: "80" }] } },
      {},
      /invalid port specification: "70000"/,
    ],
    [
      "a host port that is no number",
      { PortBindings: { "80/tcp": [{ HostPort: "http" }] } },
      {},
      /invalid port specification: "http"/,
    ],
    [
      "a range the wrong way round",
      { PortBindings: { "80/tcp": [{ HostPort: "90-80" }] } },
      {},
      /invalid port specification: "90-80"/,
    ],
    [
      "an address that is none",
      { PortBindings: { "80/tcp": [{ HostIp: "1.2.3", HostPort: "80" }] } },
      {},
      /invalid IP address: 1\.2\.3/,
    ],
    [
      "an unknown protocol",
      { PortBindings: { "80/icmp": [{ HostPort: "80" }] } },
      {},
      /invalid proto: icmp/,
    ],
    [
      "an exposed port that is no port",
      {},
      { ExposedPorts: { "web/tcp": {} } },
      /invalid port specification: "web"/,
    ],
    [
      "bindings of a wrong type",
      { PortBindings: { "80/tcp": { HostPort: "80" } } },
      {},
      /PortBindings/,
    ],
  ];
  for (const [what, host, more, message] of cases) {
    test(`${what} is refused`, async () => {
      const answer = await api("POST", "/containers/create", body(host, more));
      assert.equal(answer.status, 400, answer.text);
      assert.match(messageOf(answer), message);
    });
  }

  test("an address the host does not have is refused at the start", async () => {
    const { code, stderr } = await docker([
      ...["run", "--rm", "-p", "192.0.2.77:8080:80", busybox(), "true"],
    ]);
    assert.equal(code, 125);
    assert.match(
      stderr,
      /failed to bind host port 192\.0\.2\.77:8080\/tcp: cannot assign requested address/,
    );
  });

  test("a filter that is no port is refused", async () => {
    const answer = await api(
      "GET",
      `/containers/json?filters=${encodeURIComponent('{"publish":["x"]}')}`,
    );
    assert.equal(answer.status, 400);
    assert.equal(messageOf(answer), "invalid filter 'publish=x'");
  });
});

function hasId(pid: number, id: string): boolean {
  return execFileSync(
    "sh",
    ["-c", `tr '\\0' ' ' </proc/${pid}/cmdline || true`],
    {
      encoding: "utf8",
    },
  ).includes(id);
}

/** Why IPv6 is not tested. */
function noIPv6(): string | false {
  const loopback = networkInterfaces()["lo"] ?? [];
  return loopback.some(({ address }) => address === "::1")
    ? false
    : "this host has no IPv6";
}

async function askUdp(host: string, port: number): Promise<string> {
  const socket = createSocket(net.isIPv6(host) ? "udp6" : "udp4");
  try {
    const answer = once(socket, "message", {
      signal: AbortSignal.timeout(2_000),
    });
    socket.send("hello", port, host);
    const [message] = (await answer) as [Buffer];
    return message.toString();
  } finally {
    socket.close();
  }
}
