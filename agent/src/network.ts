/** The container's network: names, addresses and routes of the machine's NICs. */
import type {
  InterfaceSetup,
  NetworkChange,
  NetworkSetup,
} from "../../protocol/index.js";
import { AF_NETLINK, AT_FDCWD, NETLINK_ROUTE, SOCK_RAW } from "./constants.js";
import { Failure } from "./failure.js";
import { readText, writeText } from "./files.js";
import { broadcastOf, parseCidr, parseIp, parseMac } from "./ip-address.js";
import { NetlinkBatch, parseAnswers } from "./netlink.js";
import { unless } from "./sys.js";

const LOOPBACK_INDEX = 1;

interface Nic {
  name: string;
  index: number;
}

/** Brings up the loopback device and all interfaces. @throws {Failure} naming the step that failed */
export function setUpNetwork(setup: NetworkSetup): void {
  const batch = new NetlinkBatch();
  batch.link("lo: up", LOOPBACK_INDEX, { up: true });
  if (setup.interfaces.length > 0) {
    const nics = listNics();
    const chosen = setup.interfaces.map((wanted) => {
      const nic = nics[wanted.index];
      if (!nic)
        throw new Failure("invalid", `no network device ${wanted.index}`);
      return { wanted, nic };
    });
    // A name that another device has now must be free before it is given.
    for (const { wanted, nic } of chosen)
      if (nics.some((other) => other !== nic && other.name === wanted.name))
        batch.link(`${nic.name}: rename`, nic.index, {
          name: `hull${nic.index}`,
        });
    for (const { wanted, nic } of chosen) addInterface(batch, wanted, nic);
  }
  send(batch);
}

/** Puts NICs on and off networks. @throws {Failure} naming the step that failed */
export function changeNetwork({ add, remove, routes }: NetworkChange): void {
  const nics = listNics();
  const find = (index: number): Nic => {
    const nic = nics[index];
    if (!nic) throw new Failure("invalid", `no network device ${index}`);
    return nic;
  };
  const batch = new NetlinkBatch();
  for (const { index, addresses } of remove) {
    const { name, index: link } = find(index);
    // Before the link is down: that alone takes its IPv6 addresses.
    for (const { address, prefix } of addresses.map(parseCidr))
      batch.removeAddress(`${name}: address`, link, address, prefix);
    batch.link(`${name}: down`, link, { up: false });
  }
  for (const wanted of add)
    addInterface(batch, { ...wanted, gateways: [] }, find(wanted.index));
  for (const { index, gateway } of routes)
    batch.defaultRoute(
      `route by ${gateway}`,
      find(index).index,
      parseIp(gateway),
    );
  send(batch);
}

/** The machine's Ethernet devices in the order the kernel found them. */
function listNics(): Nic[] {
  const base = "/sys/class/net";
  return sys
    .list(base)
    .filter((name) =>
      unless(["ENOENT"], () =>
        sys.readlink(AT_FDCWD, `${base}/${name}/device`),
      ),
    )
    .map((name) => ({
      name,
      index: Number(readText(`${base}/${name}/ifindex`)),
    }))
    .sort((a, b) => a.index - b.index);
}

function addInterface(
  batch: NetlinkBatch,
  wanted: InterfaceSetup,
  nic: Nic,
): void {
  try {
    const addresses = wanted.addresses.map(parseCidr);
    const v6 = addresses.some(({ address }) => address.length === 16);
    // As Docker has it: IPv6 only on networks that have it, and never by router advertisement.
    const conf = `/proc/sys/net/ipv6/conf/${nic.name}`;
    unless(["ENOENT"], () => {
      if (v6) writeText(`${conf}/accept_ra`, "0");
      writeText(`${conf}/disable_ipv6`, v6 ? "0" : "1");
    });
    const { name, mtu } = wanted;
    batch.link(`${name}: name, MAC address and MTU`, nic.index, {
      name,
      mtu,
      mac: parseMac(wanted.mac),
    });
    batch.link(`${name}: up`, nic.index, { up: true });
    for (const { address, prefix } of addresses) {
      const broadcast =
        address.length === 4 && prefix < 31
          ? broadcastOf(address, prefix)
          : undefined;
      batch.address(`${name}: address`, nic.index, address, prefix, broadcast);
    }
    for (const gateway of wanted.gateways)
      batch.defaultRoute(
        `${name}: route by ${gateway}`,
        nic.index,
        parseIp(gateway),
      );
  } catch (error) {
    if (error instanceof RangeError)
      throw new Failure("invalid", error.message);
    throw error;
  }
}

function send(batch: NetlinkBatch): void {
  const socket = sys.socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  try {
    sys.send(socket, batch.buffer, 0, batch.length);
    const answers = new ArrayBuffer(16 * 1024);
    for (let open = batch.steps.length; open > 0;) {
      const length = sys.receive(socket, answers, 0, answers.byteLength);
      for (const { sequence, errno } of parseAnswers(answers, length)) {
        open--;
        if (errno !== 0)
          throw new Failure(
            "system",
            `network: ${batch.steps[sequence - 1] ?? "?"}: errno ${errno}`,
          );
      }
    }
  } finally {
    sys.close(socket);
  }
}
