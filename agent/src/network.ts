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
import { Failure, step } from "./failure.js";
import { readText, writeText } from "./files.js";
import { broadcastOf, parseCidr, parseIp, parseMac } from "./ip-address.js";
import { NetlinkBatch, parseAnswers } from "./netlink.js";
import { unless } from "./sys.js";

const LOOPBACK_INDEX = 1;
/** The first NIC's in the container; the others' follow. */
const FIRST_INDEX = 2;
const DRIVER = "/sys/bus/virtio/drivers/virtio_net";

interface Nic {
  /** Its name on the bus, e.g. "virtio3". */
  device: string;
  /** The kernel's index of it in the machine's namespace. */
  index: number;
  /** It is, or was, in the container's namespace. */
  used: boolean;
}

/**
 * The machine has more NICs than its container has networks. All of them begin in the kernel's first
 * network namespace; the agent and the container are in another one, into which those are moved that have
 * a network.
 */
export class GuestNetwork {
  private nics = listNics();
  private readonly machine = openNamespace();
  /** Speaks to the machine's namespace, also after the agent has left it. */
  private readonly route = openRoute();
  private container: number;

  constructor() {
    sys.unshare(CLONE_NEWNET);
    this.container = openNamespace();
  }

  /**
   * Undoes everything: the container's namespace is a new one, and its driver finds each NIC that was in it
   * as at boot, with its own MAC address and nothing counted.
   */
  reset(): void {
    for (const { device, used } of this.nics) {
      if (!used) continue;
      step(`find ${device} anew`, () => {
        writeText(`${DRIVER}/unbind`, device);
        writeText(`${DRIVER}/bind`, device);
      });
    }
    this.nics = listNics();
    sys.close(this.container);
    sys.unshare(CLONE_NEWNET);
    this.container = openNamespace();
  }

  /** Brings up the loopback device and all interfaces. @throws {Failure} naming the step that failed */
  setUp({ interfaces }: NetworkSetup): void {
    this.moveIn(interfaces);
    const batch = new NetlinkBatch();
    batch.link("lo: up", LOOPBACK_INDEX, { up: true });
    for (const wanted of interfaces)
      addInterface(batch, wanted, this.indexOf(wanted.index));
    sendOnce(batch);
  }

  /** Puts NICs on and off networks. @throws {Failure} naming the step that failed */
  change({ add, remove, routes }: NetworkChange): void {
    const leaving = new NetlinkBatch();
    for (const { index, addresses } of remove) {
      const link = this.indexOf(index);
      // Before the link is down: that alone takes its IPv6 addresses.
      for (const { address, prefix } of addresses.map(parseCidr))
        leaving.removeAddress(`NIC ${index}: address`, link, address, prefix);
      leaving.link(`NIC ${index}: down`, link, { up: false });
      // By a name that none of those has that are there.
      leaving.link(`NIC ${index}: away`, link, {
        name: `hull${index}`,
        namespace: this.machine,
        newIndex: this.find(index).index,
      });
    }
    sendOnce(leaving);
    this.moveIn(add);
    const batch = new NetlinkBatch();
    for (const wanted of add)
      addInterface(
        batch,
        { ...wanted, gateways: [] },
        this.indexOf(wanted.index),
      );
    for (const { index, gateway } of routes)
      batch.defaultRoute(
        `route by ${gateway}`,
        this.indexOf(index),
        parseIp(gateway),
      );
    sendOnce(batch);
  }

  /** Takes NICs into the container's namespace. */
  private moveIn(interfaces: InterfaceSetup[]): void {
    const batch = new NetlinkBatch();
    for (const { index, name, mtu, mac } of interfaces) {
      const nic = this.find(index);
      batch.link(`${name}: name, MAC address and MTU`, nic.index, {
        name,
        mtu,
        mac: invalidUnless(() => parseMac(mac)),
        namespace: this.container,
        newIndex: this.indexOf(index),
      });
      nic.used = true;
    }
    send(this.route, batch);
  }

  private find(index: number): Nic {
    const nic = this.nics[index];
    if (nic === undefined)
      throw new Failure("invalid", `no network device ${index}`);
    return nic;
  }

  /** The kernel's index of a NIC in the container's namespace. */
  private indexOf(index: number): number {
    this.find(index);
    return FIRST_INDEX + index;
  }
}

/** The machine's Ethernet devices, in the order of the bus. */
function listNics(): Nic[] {
  const base = "/sys/class/net";
  const nics: Nic[] = [];
  for (const name of sys.list(base)) {
    const link = unless(["ENOENT"], () =>
      sys.readlink(AT_FDCWD, `${base}/${name}/device`),
    );
    if (link === undefined) continue;
    const device = link.slice(link.lastIndexOf("/") + 1);
    const index = Number(readText(`${base}/${name}/ifindex`));
    nics.push({ device, index, used: false });
  }
  const place = ({ device }: Nic) => Number(device.slice("virtio".length));
  return nics.sort((a, b) => place(a) - place(b));
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
