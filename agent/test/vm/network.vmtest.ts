import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import type { InterfaceSetup, NetworkChange } from "../../../protocol/index.js";
import { TestContainer } from "./container.js";

let box: TestContainer;

afterEach(() => box.stop());

/** Boots a machine whose container has these networks. */
async function start(...interfaces: InterfaceSetup[]): Promise<void> {
  box = await TestContainer.boot({ nics: 3 });
  await box.setup({ network: { interfaces } });
  await box.startInit();
}

function nic(
  index: number,
  name: string,
  changes: Partial<InterfaceSetup> = {},
): InterfaceSetup {
  return {
    ...{ index, name, mac: `02:42:0a:00:0${index}:02`, mtu: 1500 },
    addresses: [`10.0.${index}.2/24`],
    gateways: [],
    ...changes,
  };
}

/** Each link by its name: its number, MAC address, MTU, IPv4 addresses, and what /sys says. */
async function links(): Promise<string[]> {
  const { stdout } = await box.shell(
    `for i in /sys/class/net/*; do n=\${i##*/}; echo $n $(cat $i/ifindex $i/address $i/mtu) $(ip addr show $n | awk '/inet / {print $2}') $(ip link show $n | grep -o '[<,]UP[,>]' | tr -d '<>,'); done`,
  );
  return stdout.trim().split("\n").sort();
}

const LO = "lo 1 00:00:00:00:00:00 65536 127.0.0.1/8 UP";

test("a container without a network has a loopback device, and gets networks later", async () => {
  await start();
  assert.deepEqual(await links(), [LO]);
  const { stdout } = await box.shell(
    "ip route; ip -6 addr show lo; ping -c 1 127.0.0.1",
    { capabilities: ["NET_RAW"] },
  );
  assert.match(stdout, /inet6 ::1\/128/);
  assert.match(stdout, /1 packets received/);
  assert.doesNotMatch(stdout, /via/);
  await box.machine.request("network", {
    add: [nic(0, "eth0"), nic(2, "eth2", { mtu: 1400 })],
    remove: [],
    routes: [{ index: 0, gateway: "10.0.0.1" }],
    files: [],
  });
  assert.deepEqual(await links(), [
    "eth0 2 02:42:0a:00:00:02 1500 10.0.0.2/24 UP",
    "eth2 4 02:42:0a:00:02:02 1400 10.0.2.2/24 UP",
    LO,
  ]);
  assert.match(
    (await box.shell("ip route")).stdout,
    /default via 10\.0\.0\.1 dev eth0/,
  );
});

test("networks come and go, IPv6 only where it is asked for", async () => {
  const v6 = ["10.0.1.2/24", "fd00:1::2/64"];
  await start(nic(0, "eth0"), nic(1, "eth1", { addresses: v6 }));
  /** The kernel makes a link's own address when it has found the link to be there. */
  const inet6 = async (expected: string[]) => {
    for (let tries = 0; ; tries++) {
      const { stdout } = await box.shell("cat /proc/net/if_inet6");
      const seen = stdout
        .split("\n")
        .filter(Boolean)
        .map((line) => `${line.slice(0, 4)} ${line.split(" ").pop()}`)
        .sort();
      if (tries === 50) assert.deepEqual(seen, expected);
      if (String(seen) === String(expected)) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  };
  await inet6(["0000 lo", "fd00 eth1", "fe80 eth1"]);
  await box.machine.request("network", {
    add: [],
    remove: [{ index: 0, addresses: ["10.0.0.2/24"] }],
    routes: [],
    files: [],
  });
  assert.deepEqual(await links(), [
    "eth1 3 02:42:0a:00:01:02 1500 10.0.1.2/24 UP",
    LO,
  ]);
  await box.machine.request("network", {
    add: [nic(0, "eth0", { addresses: ["10.9.0.2/24", "fd00:9::2/64"] })],
    remove: [{ index: 1, addresses: v6 }],
    routes: [],
    files: [],
  });
  assert.deepEqual(await links(), [
    "eth0 2 02:42:0a:00:00:02 1500 10.9.0.2/24 UP",
    LO,
  ]);
  await inet6(["0000 lo", "fd00 eth0", "fe80 eth0"]);
});

test("the first device may have another name", async () => {
  await start(nic(0, "wan0"), nic(1, "eth0"));
  assert.deepEqual(await links(), [
    "eth0 3 02:42:0a:00:01:02 1500 10.0.1.2/24 UP",
    LO,
    "wan0 2 02:42:0a:00:00:02 1500 10.0.0.2/24 UP",
  ]);
});

/** Changes the networks of the container. */
function change(changes: Partial<NetworkChange>): Promise<unknown> {
  return box.machine.request("network", {
    ...{ add: [], remove: [], routes: [], files: [] },
    ...changes,
  });
}

test("addresses are read as people write them, and a text that is none is refused", async () => {
  await start(nic(0, "eth0"));
  for (const text of [
    ...["", "1.2.3", "1.2.3.256", "1.2.3.4.5", "1..2.3", "1.2.3.", ".1.2.3"],
    ...["1.2.3.0004", "1.2.3.4 ", "a.b.c.d", ":", ":::", "1::2::3", "::1.2.3"],
    ...["1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "12345::"],
    ...["g::", "1:2:3:4:5:6:7: 8", "1:2:3:4:5:6:7:0x8", "::1%eth0"],
  ]) {
    const refusal = { message: `invalid: not an IP address: ${text}` };
    const add = [nic(1, "eth1", { addresses: [`${text}/8`] })];
    await assert.rejects(change({ add }), refusal);
    const routes = [{ index: 0, gateway: text }];
    await assert.rejects(change({ routes }), refusal);
  }
  for (const text of ["1.2.3.4/33", "::1/129", "1.2.3.4/", "1.2.3.4/x"])
    await assert.rejects(
      change({ add: [nic(1, "eth1", { addresses: [text] })] }),
      {
        message: `invalid: not a prefix length: ${text}`,
      },
    );
  for (const mac of [
    "02:42:ac:11:00:0 ",
    "02: 2:ac:11:00:02",
    "+2:42:ac:11:00:02",
    "02-42-ac-11-00-02",
    "02:42:ac:11:00:zz",
  ])
    await assert.rejects(change({ add: [nic(1, "eth1", { mac })] }), {
      message: `invalid: not a MAC address: ${mac}`,
    });
  const addresses = ["10.9.0.2", "fd00::12:ABCD/64", "1:2:3:4:5:6:7:8/128"];
  addresses.push("fd01::10.0.0.1/127", "fd02::");
  await change({ add: [nic(1, "eth1", { addresses })] });
  const { stdout } = await box.shell(
    "ip addr show eth1; cat /proc/net/if_inet6",
  );
  assert.match(stdout, /inet 10\.9\.0\.2\/32 /);
  for (const line of [
    "fd00000000000000000000000012abcd 03 40",
    "00010002000300040005000600070008 03 80",
    "fd01000000000000000000000a000001 03 7f",
    "fd020000000000000000000000000000 03 80",
  ])
    assert.ok(stdout.includes(line), `${line}: ${stdout}`);
});

test("an error names the first step that failed, and is of that request only", async () => {
  await start(nic(0, "eth0"));
  // No link's MTU; its address is answered as well, and done.
  await assert.rejects(change({ add: [nic(1, "eth1", { mtu: 10 })] }), {
    message: "system: network: eth1: MAC address, MTU, up: errno 22",
  });
  await assert.rejects(
    change({ routes: [{ index: 0, gateway: "10.9.9.9" }] }),
    {
      message: "system: network: route by 10.9.9.9: errno 101",
    },
  );
  await change({ routes: [{ index: 0, gateway: "10.0.0.1" }] });
  assert.match(
    (await box.shell("ip route")).stdout,
    /default via 10\.0\.0\.1 dev eth0/,
  );
});
