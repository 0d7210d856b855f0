/** The container's network: names, addresses and routes of the machine's NICs. */
import type {
  InterfaceSetup,
  NetworkChange,
  NetworkSetup,
} from "../../protocol/index.js";
import {
  AF_NETLINK,
  AT_FDCWD,
  CLONE_NEWNET,
  NETLINK_ROUTE,
  O_RDONLY,
  SOCK_RAW,
} from "./constants.js";
import { Failure } from "./failure.js";
import { readText, writeText } from "./files.js";
import { broadcastOf, parseCidr, parseIp, parseMac } from "./ip-address.js";
import { NetlinkBatch, parseAnswers } from "./netlink.js";
import { unless } from "./sys.js";

const LOOPBACK_INDEX = 1;

/**
 * The machine has more NICs than its container has networks. All of them begin in the kernel's first
 * network namespace; the agent and the container are in another one, into which those are moved that have
 * a network.
 */
export class GuestNetwork {
  private readonly nics = listNics();
  private readonly machine = openNamespace();
  /** Speaks to the machine's namespace, also after the agent has left it. */
  private readonly route = openRoute();
  private readonly container: number;

  constructor() {
    sys.unshare(CLONE_NEWNET);
    this.container = openNamespace();
  }

  /** Brings up the loopback device and all interfaces. @throws {Failure} naming the step that failed */
  setUp({ interfaces }: NetworkSetup): void {
    this.moveIn(interfaces);
    const batch = new NetlinkBatch();
    batch.link("lo: up", LOOPBACK_INDEX, { up: true });
    for (const wanted of interfaces)
      addInterface(batch, wanted, this.find(wanted.index));
    sendOnce(batch);
  }

  /** Puts NICs on and off networks. @throws {Failure} naming the step that failed */
  change({ add, remove, routes }: NetworkChange): void {
    const leaving = new NetlinkBatch();
    for (const { index, addresses } of remove) {
      const link = this.find(index);
      // Before the link is down: that alone takes its IPv6 addresses.
      for (const { address, prefix } of addresses.map(parseCidr))
        leaving.removeAddress(`NIC ${index}: address`, link, address, prefix);
      leaving.link(`NIC ${index}: down`, link, { up: false });
      // By a name that none of those has that are there.
      leaving.link(`NIC ${index}: away`, link, {
        name: `hull${index}`,
        namespace: this.machine,
      });
    }
    sendOnce(leaving);
    this.moveIn(add);
    const batch = new NetlinkBatch();
    for (const wanted of add)
      addInterface(batch, { ...wanted, gateways: [] }, this.find(wanted.index));
    for (const { index, gateway } of routes)
      batch.defaultRoute(
        `route by ${gateway}`,
        this.find(index),
        parseIp(gateway),
      );
    sendOnce(batch);
  }

  /** Takes NICs into the container's namespace; their kernel indices stay. */
  private moveIn(interfaces: InterfaceSetup[]): void {
    const batch = new NetlinkBatch();
    for (const { index, name, mtu, mac } of interfaces)
      batch.link(`${name}: name, MAC address and MTU`, this.find(index), {
        name,
        mtu,
        mac: invalidUnless(() => parseMac(mac)),
        namespace: this.container,
      });
    send(this.route, batch);
  }

  /** The kernel's index of a NIC. */
  private find(index: number): number {
    const nic = this.nics[index];
    if (nic === undefined)
      throw new Failure("invalid", `no network device ${index}`);
    return nic;
  }
}

/** The kernel's indices of the machine's Ethernet devices, in the order it found them. */
function listNics(): number[] {
  const base = "/sys/class/net";
  return sys
    .list(base)
    .filter((name) =>
      unless(["ENOENT"], () =>
        sys.readlink(AT_FDCWD, `${base}/${name}/device`),
      ),
    )
    .map((name) => Number(readText(`${base}/${name}/ifindex`)))
    .sort((a, b) => a - b);
}

function openNamespace(): number {
  return sys.open(AT_FDCWD, "/proc/self/ns/net", O_RDONLY, 0);
}

function addInterface(
  batch: NetlinkBatch,
  wanted: InterfaceSetup,
  index: number,
): void {
  const { name } = wanted;
  invalidUnless(() => {
    const addresses = wanted.addresses.map(parseCidr);
    const v6 = addresses.some(({ address }) => address.length === 16);
    // As Docker has it: IPv6 only on networks that have it, and never by router advertisement.
    const conf = `/proc/sys/net/ipv6/conf/${name}`;
    unless(["ENOENT"], () => {
      if (v6) writeText(`${conf}/accept_ra`, "0");
      writeText(`${conf}/disable_ipv6`, v6 ? "0" : "1");
    });
    batch.link(`${name}: up`, index, { up: true });
    for (const { address, prefix } of addresses) {
      const broadcast =
        address.length === 4 && prefix < 31
          ? broadcastOf(address, prefix)
          : undefined;
      batch.address(`${name}: address`, index, address, prefix, broadcast);
    }
    for (const gateway of wanted.gateways)
      batch.defaultRoute(
        `${name}: route by ${gateway}`,
        index,
        parseIp(gateway),
      );
  });
}

/** A text that is no address makes the request invalid. */
function invalidUnless<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof RangeError)
      throw new Failure("invalid", error.message);
    throw error;
  }
}

function openRoute(): number {
  return sys.socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
}

/** Sends it in the agent's own namespace, which is the container's. */
function sendOnce(batch: NetlinkBatch): void {
  const socket = openRoute();
  try {
    send(socket, batch);
  } finally {
    sys.close(socket);
  }
}

function send(socket: number, batch: NetlinkBatch): void {
  if (batch.steps.length === 0) return;
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
}
